"""Helpers of the commands that manage tokens."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

from systemtasks.runs.values import utc

SPAN = re.compile(r"([0-9]{1,6})([dh])", re.ASCII)
TIME_FORMAT = "%Y-%m-%d %H:%M UTC"


class UserMissingError(CommandError):
    """No user has this name."""


def user_named(username: str) -> AbstractBaseUser:
    """Return the user of this name. Raise UserMissingError if there is none."""
    model: Any = get_user_model()
    manager = model._default_manager
    find = getattr(manager, "get_by_natural_key", None)
    try:
        user: AbstractBaseUser = (
            find(username) if find else manager.get(**{model.USERNAME_FIELD: username})
        )
    except (model.DoesNotExist, ValidationError, ValueError):  # or it cannot be a user's name
        raise UserMissingError(f"There is no user {username!r}.") from None
    except model.MultipleObjectsReturned:
        raise CommandError(f"There is more than one user {username!r}.") from None
    return user


def future_time(text: str, now: datetime) -> datetime:
    """Return the time that the text means: `90d`, `12h`, `2027-01-31` or an ISO 8601 date-time.

    `90d` and `12h` are counted from `now`. A date stands for the beginning of that day. The time
    is in UTC unless the text names an offset. Raise CommandError for any other text, and for a
    time that is not after `now`.
    """
    try:
        time = _time(text, now)
    except (ValueError, OverflowError):
        time = None
    if time is None:
        raise CommandError(
            f"--expires must be like 90d, 12h, 2027-01-31 or 2027-01-31T18:00Z, not {text!r}."
        )
    if time <= now:
        raise CommandError(f"--expires must be in the future, and {text!r} is not.")
    return time


def _time(text: str, now: datetime) -> datetime:
    if match := SPAN.fullmatch(text):
        unit = {"d": timedelta(days=1), "h": timedelta(hours=1)}[match[2]]
        return now + int(match[1]) * unit
    return utc(text)


def utc_time(time: datetime) -> datetime:
    """Return a time of knox's in UTC. With USE_TZ=False it has no offset, and is in TIME_ZONE."""
    return (timezone.make_aware(time) if timezone.is_naive(time) else time).astimezone(UTC)
