"""Keep beat's schedule in the database, with the times that only beat knows: last sent, next due.

Runs in beat's own thread, after each of its ticks. It only queries the database for the disabled
entries of django-celery-beat.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any

from celery import Celery
from django.utils import timezone

from systemtasks.capture.celery import entry_options
from systemtasks.capture.celery.options import info_of
from systemtasks.capture.celery.schedule import known_tasks
from systemtasks.capture.celery.words import in_words
from systemtasks.capture.guard import never_raising
from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.exceptions import log_handled
from systemtasks.runs.journal_line import without_secrets
from systemtasks.runs.records import NAME_LIMIT, KnownTask, ScheduleRecord
from systemtasks.runs.values import clean_column
from systemtasks.storage.writer import writer

logger = own_logger(__name__)

Facts = tuple[Any, ...]
"""The values that a record is made from. If they are the same, so is the record."""


class ScheduleFollower:
    """Passes beat's schedule to the writer each time it has changed."""

    def __init__(self, app: Celery, scheduler: Any) -> None:  # noqa: ANN401 - of any class
        self._app = app
        self._name = clean_column(str(app.main or ""), NAME_LIMIT)
        self._scheduler = scheduler
        self._made: dict[str, tuple[Facts, ScheduleRecord | None]] = {}
        self._schedule: object = None
        self._disabled: dict[str, ScheduleRecord] = {}
        self._written: dict[str, ScheduleRecord] | None = None
        self._known: list[KnownTask] | None = None

    def follow(self) -> None:
        """Write the schedule now, and after each of the scheduler's ticks."""
        tick = self._scheduler.tick

        @wraps(tick)
        def noting_tick(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the scheduler's own
            try:
                return tick(*args, **kwargs)
            finally:
                self._note()

        self._scheduler.tick = noting_tick
        self._note()

    @property
    def _note(self) -> Any:  # noqa: ANN401
        return never_raising(self._write)

    def _write(self) -> None:
        entries = self._scheduler.schedule
        if entries is not self._schedule or self._written is None:
            self._schedule = entries
            self._disabled = {one.entry: one for one in self._read_disabled()}
            self._announce(entries)
        records = {one.entry: one for one in self._records(entries)}
        records = {**self._disabled, **records}
        if records != self._written:
            self._written = records
            writer.write_schedule(self._name, records)

    def _announce(self, entries: Mapping[str, Any]) -> None:
        known = known_tasks(self._app, entries)
        if known != self._known:
            self._known = known
            writer.announce(known)

    def _records(self, entries: Mapping[str, Any]) -> Iterator[ScheduleRecord]:
        made = {}
        for name, entry in entries.items():
            sent = _sent(entry)
            facts = (entry.task, entry.schedule, *sent, entry.args, entry.kwargs, entry.options)
            before = self._made.get(name)
            if before is not None and before[0] == facts:
                record = before[1]
            else:
                record = self._record(name, entry)
            made[name] = facts, record
            if record is not None:
                yield record
        self._made = made

    def _read_disabled(self) -> Iterator[ScheduleRecord]:
        """Yield the disabled entries of django-celery-beat. Beat itself does not read them."""
        rows: Any = getattr(getattr(self._scheduler, "Model", None), "objects", None)
        if rows is None:
            return
        for row in rows.filter(enabled=False):
            entry = _DisabledEntry(row)
            if record := self._record(row.name, entry, enabled=False):
                yield record

    def _record(
        self,
        name: str,
        entry: Any,  # noqa: ANN401
        *,
        enabled: bool = True,
    ) -> ScheduleRecord | None:
        """Return the record of an entry, or None if it has no task or its task is not recorded."""
        if not entry.task:
            return None
        info = info_of(self._app, entry.task)
        if not info.recorded:
            return None
        find_task = partial(info_of, self._app)
        kept = clean_arguments(info, entry.args or (), entry.kwargs or {}, find_task)
        if conf().MASK_TEXTS:
            kept = without_secrets(kept)
        last_run_at, total_run_count = _sent(entry)
        last = _aware(last_run_at)
        return ScheduleRecord(
            app=self._name,
            entry=clean_column(str(name), NAME_LIMIT),
            task=info.name,
            uid=kept.uid,
            words=clean_column(in_words(entry.schedule), NAME_LIMIT),
            next_due=_next_due(entry, last) if enabled else None,
            # Until beat has sent an entry, this is the time at which it first saw it.
            last_sent=last.astimezone(UTC) if last and total_run_count else None,
            enabled=enabled,
            args=kept.args,
            kwargs=kept.kwargs,
            arguments_intact=kept.intact,
            sent_options=entry_options.column(self._app, entry, kept.types),
        )


class _DisabledEntry:
    """An entry of django-celery-beat as it is in its table."""

    def __init__(self, row: Any) -> None:  # noqa: ANN401 - a PeriodicTask
        self.task, self.last_run_at = row.task, row.last_run_at
        self.total_run_count = row.total_run_count
        self.args, self.kwargs = _decoded(row.args, []), _decoded(row.kwargs, {})
        options = ("queue", "exchange", "routing_key", "priority", "expires", "expire_seconds")
        given = {name: getattr(row, name, None) for name in options}
        self.options = {name: value for name, value in given.items() if value not in (None, "")}
        if (seconds := self.options.pop("expire_seconds", None)) is not None:
            self.options["expires"] = seconds
        if headers := _decoded(getattr(row, "headers", None), {}):
            self.options["headers"] = headers
        self.schedule: Any = None
        with suppress(Exception):  # its schedule may have been deleted
            self.schedule = row.schedule


def _sent(entry: Any) -> tuple[datetime | None, int]:  # noqa: ANN401
    """Return when beat last sent an entry, and how many times.

    The entries of django-celery-beat keep this in their row.
    """
    row = getattr(entry, "model", entry)
    return row.last_run_at, row.total_run_count


def _decoded(text: str | None, default: Any) -> Any:  # noqa: ANN401 - JSON
    with suppress(ValueError):
        return json.loads(text or "") or default
    return default


def _aware(time: datetime | None) -> datetime | None:
    """Return the time with an offset. With USE_TZ=False, it may have none and be in TIME_ZONE."""
    return time if time is None or time.tzinfo else timezone.make_aware(time)


def _next_due(entry: Any, last: datetime | None) -> datetime | None:  # noqa: ANN401
    """Return when beat sends the entry next, or None for never: a recurrence that has ended."""
    try:
        wait: timedelta | None = entry.schedule.remaining_estimate(last)
    except Exception:  # noqa: BLE001 - a schedule may be of a project's own class
        log_handled(logger, "When the entry %s of the schedule is due is not known", entry.name)
        return None
    if wait is None:
        return None
    try:
        # Schedules are exact to the second. Rounded, because the wait was computed a bit earlier.
        due = (datetime.now(UTC) + wait + timedelta(seconds=0.5)).replace(microsecond=0)
    except OverflowError:
        return None
    begins = _aware(getattr(getattr(entry, "model", None), "start_time", None))
    return max(due, begins.astimezone(UTC)) if begins else due
