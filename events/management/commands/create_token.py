"""Create a token for the API."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Permission
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from ...authentication import token_model
from ...models import TokenGrant
from ...tokens import TIME_FORMAT, UserMissingError, future_time, user_named
from ...users import has_permission_fields

HIGHEST_RATE = 1_000_000  # requests a minute
CODENAMES = ("view_systemtask", "view_taskrun")


class Command(BaseCommand):
    help = (
        "Create a token for the API and print it on standard output, which has nothing else. It is "
        "shown only this once: the database keeps its hash. Clients send it as "
        "'Authorization: Bearer TOKEN'."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "username", metavar="USER", help="the user whose permissions the token has"
        )
        parser.add_argument(
            "--expires",
            metavar="WHEN",
            help="when it expires: 90d or 12h from now, the beginning of a day (2027-01-31), "
            "or an ISO 8601 date-time; in UTC unless it names an offset (default: never)",
        )
        parser.add_argument(
            "--read-only", action="store_true", help="allow GET only, whatever USER may do"
        )
        parser.add_argument(
            "--rate", type=int, metavar="N", help="allow N requests a minute (default: no limit)"
        )
        parser.add_argument(
            "--create-user",
            action="store_true",
            help="create USER if there is none, with no password and permission to view only",
        )

    @transaction.atomic
    def handle(
        self,
        *_: object,
        username: str,
        expires: str | None,
        read_only: bool,
        rate: int | None,
        create_user: bool,
        **__: object,
    ) -> None:
        if rate is not None and not 1 <= rate <= HIGHEST_RATE:
            raise CommandError(f"--rate must be from 1 to {HIGHEST_RATE}, not {rate}.")
        now = datetime.now(UTC)
        expiry = future_time(expires, now) if expires is not None else None
        user = find_or_create(username) if create_user else user_named(username)
        if not user.is_active:
            raise CommandError(f"The user {username!r} is inactive, so a token would not work.")
        stored, token = token_model().objects.create(user, expiry=expiry and expiry - now)
        TokenGrant.objects.create(token_id=stored.pk, read_only=read_only, rate=rate)
        until = f"until {expiry:{TIME_FORMAT}}" if expiry else "until it is revoked"
        self.stderr.write(
            f"The token of {username} works {until}. It is not shown again; "
            f"revoke_token {stored.token_key} ends it.",
            style_func=str,
        )
        self.stdout.write(token)


def find_or_create(username: str) -> AbstractBaseUser:
    """Return the user of this name; a new one gets permission to view, and no password.

    Raise CommandError if this cannot be a user's name, and if such a user needs more than that.
    """
    with suppress(UserMissingError):
        return user_named(username)
    model: Any = get_user_model()
    if not has_permission_fields():
        raise CommandError(
            f"{model._meta.label} has permissions of its own, so the user {username!r} cannot be "
            "given any. Create the user by the project's own means, and leave out --create-user."
        )
    user: Any = model(**{model.USERNAME_FIELD: username})
    user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        raise CommandError(_refusal(username, error)) from None
    user.save()
    user.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="systemtasks", codename__in=CODENAMES)
    )
    made: AbstractBaseUser = user
    return made


def _refusal(username: str, error: ValidationError) -> str:
    """Return a sentence that says why this user cannot be created."""
    faults: dict[str, list[str]] = error.message_dict
    name = get_user_model().USERNAME_FIELD
    if set(faults) <= {name, NON_FIELD_ERRORS}:
        return f"{username!r} cannot be a user's name: {' '.join(error.messages)}"
    needed = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in faults.items())
    return (
        f"A user needs more than a name ({needed}). Create {username!r} by the project's own "
        "means, and leave out --create-user."
    )
