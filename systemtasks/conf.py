"""The settings of this app, with their types and defaults.

A project overrides them in one dictionary in its Django settings::

    SYSTEMTASKS = {"EXPIRES_AFTER_DAYS": 90}

This service reads some of them from the environment, under the same names (config/settings.py).
The first sentence below each of them is its line in docs/settings.md and in .env.example.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string


@dataclass(frozen=True, slots=True)
class Conf:
    """The current settings."""

    ENABLED: bool = True
    """Record what this process sends and runs."""

    DATABASE: str = "default"
    """The alias, in `DATABASES`, of the database that holds the rows."""

    EXPIRES_AFTER_DAYS: float = 30
    """Days to keep a finished run, and a task after its last run; 0 keeps them forever."""

    ERRORS_KEPT_LONGER_DAYS: float = 0
    """Days to keep a run that ended as an error longer than others."""

    HOURLY_STATISTICS_DAYS: float = 100
    """Days to keep the statistics of each hour, at least 2; 0 keeps them forever."""

    DAILY_STATISTICS_DAYS: float = 1100
    """Days to keep the statistics of each day, at least 62; 0 keeps them forever."""

    MONTHLY_STATISTICS_DAYS: float = 3660
    """Days to keep the statistics of each month, at least 62; 0 keeps them forever."""

    WARNING_FROM_LOGS: bool = True
    """Give a run that succeeds but logs a WARNING or worse the status `warning`."""

    RECORD_LOG_LEVEL: str = "INFO"
    """The lowest level of a log record that becomes a message of its run."""

    MESSAGE_LIMIT: int = 200
    """Maximum messages of a run; the middle ones are dropped."""

    MESSAGES_LIMIT: int = 262_144
    """Maximum bytes of JSON of a run's messages; the middle ones are dropped."""

    TEXT_LIMIT: int = 8192
    """Characters of one text (a message, a value, a traceback) that are kept."""

    FOLLOW_THREADS: bool = True
    """Add what a thread logs to the run that started it or gave it its work."""

    RECORD_SENDING: bool = True
    """Record a run from the moment it is sent, in the state `queued`."""

    SENDER_CONTEXT: str = ""
    """The dotted path of a function, called without arguments in the process that sends a task.

    The small dictionary that it returns (user, request, tenant) is kept with the run. It may return
    None.
    """

    KNOWN_FROM_START: str = "scheduled"
    """The tasks that have a row before they have run: `scheduled`, `registered` or `none`.

    Scheduled tasks are those in beat's schedule. Registered ones are all that a worker knows.
    """

    RECORD_ARGUMENTS: bool = True
    """Keep the arguments of a run."""

    ARGUMENTS_LIMIT: int = 16384
    """Bytes of JSON that a run's arguments may take.

    If they take more, their texts are cut. If that is not enough, all arguments are left out.
    """

    HIDDEN_KEYS: str = ""
    """A regular expression; values under a name that matches it are masked as well.

    The names of docs/masking.md are masked anyway.
    """

    SHOWN_KEYS: str = ""
    """A regular expression; values under a name that matches it are not masked.

    A task's own option `systemtasks_masked` masks them all the same.
    """

    MASK_TEXTS: bool = True
    """Mask secrets in texts, too: what a run logs and raises, its uid, description and context."""

    BATCH_INTERVAL: float = 0.15
    """Seconds between two batches of rows."""

    BATCH_LIMIT: int = 500
    """Maximum sent and ended runs in a batch.

    Runs in progress that have something new are written with them.
    """

    RUNNING_INTERVAL: float = 1.0
    """Seconds between two updates of the rows of runs in progress."""

    LEASE_SECONDS: float = 60
    """Seconds without a sign of life after which a worker's runs are orphaned, and ended as errors.

    A worker gives a sign of life every quarter of this time.
    """

    LOST_AFTER_DAYS: float = 1
    """Days after which a run that was sent and has never started ends as lost; 0 for never.

    They count from when it was due, if it was sent with a countdown or an ETA. If it starts after
    all, it is in progress like any other.
    """

    PENDING_LIMIT: int = 20_000
    """Maximum runs that wait in each process while the database is away."""

    PENDING_BYTES: int = 67_108_864
    """Maximum bytes, in memory and on disk, of the runs that wait in each process."""

    JOURNAL_DIR: str = ""
    """The folder of the journal; empty for one in the home of the workers' account.

    No other account may write to it. For an account without a home, it is in the folder of
    temporary files.
    """

    FLUSH_TIMEOUT: float = 5.0
    """Seconds that a process which is shutting down waits for its last rows to be written."""

    MOST_WAITING: int = 2
    """Maximum requests with `?wait=` that wait at once in each process of the web server."""

    TOKEN_RATE: int = 300_000
    """Requests a minute that each process of the web server answers to one token; 0 for any number.

    A token with a rate of its own has that one instead, over all processes.
    """

    WRONG_TOKEN_RATE: int = 600
    """Wrong tokens of one address that each process looks up in a minute; 0 for any number."""

    CONNECTION_IDLE_SECONDS: float = 60
    """Seconds without a row to write after which a process closes its connection to Postgres."""

    @property
    def expires_after(self) -> timedelta | None:
        """Return how long rows are kept, or None if they are kept forever."""
        return timedelta(days=self.EXPIRES_AFTER_DAYS) if self.EXPIRES_AFTER_DAYS else None


LONGEST_EXPIRY = timedelta(days=36_500)


def is_expiry(value: object) -> bool:
    """Return True for a valid time until a row expires: None, or up to a hundred years."""
    return value is None or (
        isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_EXPIRY
    )


def _accepts(hint: Any, value: object) -> bool:  # noqa: ANN401 - a type hint is any object
    if get_origin(hint) is UnionType:
        return any(_accepts(member, value) for member in get_args(hint))
    if hint is NoneType:
        return value is None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return True
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


@cache
def conf() -> Conf:
    """Return the current settings, which are read once.

    Raise ImproperlyConfigured for an unknown name or an invalid value.
    """
    given = getattr(settings, "SYSTEMTASKS", {})
    hints = get_type_hints(Conf)
    for name, value in given.items():
        if name not in hints:
            known = ", ".join(field.name for field in fields(Conf))
            raise ImproperlyConfigured(f"SYSTEMTASKS['{name}'] is not a setting; there are {known}")
        if not _accepts(hints[name], value):
            hint = hints[name]
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            raise ImproperlyConfigured(f"SYSTEMTASKS['{name}'] must be {expected}, not {value!r}")
    read = Conf(**given)
    for name, fault in _faults(read):
        raise ImproperlyConfigured(f"SYSTEMTASKS['{name}'] must be {fault}")
    return read


def _faults(read: Conf) -> Iterator[tuple[str, str]]:
    yield from _faults_of_days(read)
    if read.DATABASE not in settings.DATABASES:
        yield "DATABASE", "an alias in DATABASES"
    if read.RECORD_LOG_LEVEL not in logging.getLevelNamesMapping():
        yield "RECORD_LOG_LEVEL", f"a level of logging, not {read.RECORD_LOG_LEVEL!r}"
    if read.KNOWN_FROM_START not in ("scheduled", "registered", "none"):
        yield "KNOWN_FROM_START", "scheduled, registered or none"
    yield from _faults_of_numbers(read)
    yield from _faults_of_code(read)


def _faults_of_numbers(read: Conf) -> Iterator[tuple[str, str]]:
    for name in ("MOST_WAITING", "TOKEN_RATE", "WRONG_TOKEN_RATE"):
        if getattr(read, name) < 0:
            yield name, "0 or more"
    for name in ("BATCH_INTERVAL", "RUNNING_INTERVAL", "LEASE_SECONDS", "CONNECTION_IDLE_SECONDS"):
        if not 0 < getattr(read, name) < float("inf"):
            yield name, "more than 0 seconds"
    for field in fields(Conf):
        if field.name.endswith(("_LIMIT", "_BYTES")) and getattr(read, field.name) < 1:
            yield field.name, "at least 1"


def _faults_of_days(read: Conf) -> Iterator[tuple[str, str]]:
    for name in ("EXPIRES_AFTER_DAYS", "ERRORS_KEPT_LONGER_DAYS", "LOST_AFTER_DAYS"):
        if not 0 <= getattr(read, name) <= LONGEST_EXPIRY.days:
            yield name, f"from 0 to {LONGEST_EXPIRY.days}"
    # A day is made of its hours, and a month of its days, so these have to be there.
    for name, fewest in (
        ("HOURLY_STATISTICS_DAYS", 2),
        ("DAILY_STATISTICS_DAYS", 62),
        ("MONTHLY_STATISTICS_DAYS", 62),
    ):
        days = getattr(read, name)
        if days and not fewest <= days <= LONGEST_EXPIRY.days:
            yield name, f"0, or from {fewest} to {LONGEST_EXPIRY.days}"


def _faults_of_code(read: Conf) -> Iterator[tuple[str, str]]:
    for name in ("HIDDEN_KEYS", "SHOWN_KEYS"):
        try:
            re.compile(getattr(read, name))
        except re.error as error:
            yield name, f"a regular expression ({error})"
    try:
        if not callable(sender_context(read) or dict):
            yield "SENDER_CONTEXT", "the dotted path of a function, which can be called"
    except ImportError as error:
        yield "SENDER_CONTEXT", f"the dotted path of a function ({error})"


def sender_context(read: Conf) -> Callable[[], object] | None:
    """Return the function that SENDER_CONTEXT names, or None if it is empty.

    Raise ImportError if it cannot be imported.
    """
    if not read.SENDER_CONTEXT:
        return None
    function: Callable[[], object] = import_string(read.SENDER_CONTEXT)
    return function


def _reset(*, setting: str, **_: object) -> None:
    if setting == "SYSTEMTASKS":
        conf.cache_clear()


setting_changed.connect(_reset)
