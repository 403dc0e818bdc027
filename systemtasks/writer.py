"""The only module that writes rows: finished runs, in batches, from one thread a process."""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from django.db import DataError, IntegrityError, connections, transaction
from psycopg.errors import UniqueViolation

from systemtasks.conf import conf
from systemtasks.journal import Journal, Segment
from systemtasks.models import system_task_uuid
from systemtasks.recorder import RunRecord
from systemtasks.states import State

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0  # seconds between two tries while the database is away
ORPHAN_INTERVAL = 5.0  # seconds between two looks for what dead processes left

# Errors that lie in a record, and not in the database or the way to it.
RECORD_ERRORS = (DataError, IntegrityError, ValueError, TypeError, OverflowError)

SYSTEM_TASK_COLUMNS = {
    "uuid": "uuid",
    "name": "text",
    "uid": "text",
    "description": "text",
    "start_timestamp": "timestamptz",
    "finish_timestamp": "timestamptz",
    "duration": "float8",
    "status": "text",
    "messages": "jsonb",
    "expires": "timestamptz",
}
TASK_RUN_COLUMNS = {
    "system_task_id": "uuid",
    "celery_id": "text",
    "attempt": "int4",
    "state": "text",
    "status": "text",
    "queue": "text",
    "worker": "text",
    "sent_timestamp": "timestamptz",
    "start_timestamp": "timestamptz",
    "finish_timestamp": "timestamptz",
    "wait": "float8",
    "duration": "float8",
    "args": "jsonb",
    "kwargs": "jsonb",
    "arguments_intact": "bool",
    "exception": "text",
    "messages": "jsonb",
    "expires": "timestamptz",
}


def _upsert(table: str, columns: dict[str, str], key: tuple[str, ...], newer: str) -> str:
    # Rows are locked in the order of their key, so that two workers' batches never deadlock.
    names = ", ".join(columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in columns.values())
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name not in key)
    keys = ", ".join(key)
    return (
        f"INSERT INTO {table} AS old ({names}) "  # noqa: S608 - all of it is our own words
        f"SELECT {names} FROM unnest({arrays}) AS new ({names}) ORDER BY {keys} "
        f"ON CONFLICT ({keys}) DO UPDATE SET {updates} WHERE {newer}"
    )


UPSERT_SYSTEM_TASKS = _upsert(
    "systemtasks_systemtask",
    SYSTEM_TASK_COLUMNS,
    ("uuid",),
    "old.start_timestamp <= EXCLUDED.start_timestamp",
)
# A redelivered task runs again under the same Celery id and attempt: the later run stands.
UPSERT_TASK_RUNS = _upsert(
    "systemtasks_taskrun",
    TASK_RUN_COLUMNS,
    ("celery_id", "attempt"),
    "old.start_timestamp IS NULL OR old.start_timestamp < EXCLUDED.start_timestamp "
    "OR (old.start_timestamp = EXCLUDED.start_timestamp "
    "AND (old.finish_timestamp IS NULL OR EXCLUDED.finish_timestamp IS NOT NULL))",
)


def write(records: Sequence[RunRecord]) -> None:
    """Write these records in one transaction; an older record never overwrites a newer one.

    Raises what the database raises, and then has written none of them.
    """
    records = sorted(records, key=lambda record: record.start_timestamp)
    tasks = {system_task_uuid(record.name, record.uid): record for record in records}
    runs = {(record.celery_id, record.attempt): record for record in records}
    for last in (False, False, True):
        try:
            _upsert_rows(tasks.values(), runs.values())
        except IntegrityError as error:
            # ON CONFLICT looks at one unique index: where two processes insert a new task at the
            # same moment, the other index may refuse it. Now that row is there to be updated.
            if last or not isinstance(error.__cause__, UniqueViolation):
                raise
        else:
            return


def _upsert_rows(tasks: Collection[RunRecord], runs: Collection[RunRecord]) -> None:
    alias = conf().DATABASE
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(UPSERT_SYSTEM_TASKS, _arrays(SYSTEM_TASK_COLUMNS, tasks))
        cursor.execute(UPSERT_TASK_RUNS, _arrays(TASK_RUN_COLUMNS, runs))


def _arrays(columns: dict[str, str], records: Collection[RunRecord]) -> list[list[Any]]:
    return [
        [
            system_task_uuid(record.name, record.uid)
            if column in ("uuid", "system_task_id")
            else getattr(record, column)
            for record in records
        ]
        for column in columns
    ]


class Writer:
    """Takes records from any thread, and writes them from one of its own."""

    def __init__(self) -> None:
        self._journal = Journal()
        self.reset()

    def reset(self) -> None:
        """Begin with nothing, as a forked child must: its parent writes what is the parent's."""
        self._journal.forget()
        self._journal = Journal()
        self._pending: deque[RunRecord] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._work = threading.Event()
        self._writing = 0
        self._dropped = 0
        self._given_up = False

    def submit(self, record: RunRecord) -> None:
        """Hand over a record; takes microseconds and never waits for the database.

        When this returns, the record is in the journal.
        """
        with self._changed:
            if len(self._pending) + self._writing >= conf().PENDING_LIMIT and self._pending:
                self._drop_one()
            self._journal.append(record)
            self._pending.append(record)
            self._start()
        self._work.set()

    def start(self) -> None:
        """Have the thread run, which also writes what dead processes left in the journal."""
        with self._changed:
            self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is written, at most `timeout` seconds (default: FLUSH_TIMEOUT).

        Returns whether all is.
        """
        if self._thread is None:
            return True
        self._hurry.set()
        self._work.set()
        with self._changed:
            done = self._changed.wait_for(
                lambda: not self._pending and not self._writing,
                conf().FLUSH_TIMEOUT if timeout is None else timeout,
            )
        self._hurry.clear()
        self._given_up = not done
        if not done:
            left = len(self._pending) + self._writing
            logger.error("The database is away: %d task runs stay in the journal", left)
        return done

    def flush_at_exit(self) -> None:
        """Flush, unless the worker's shutdown has already waited in vain."""
        if not self._given_up:
            self.flush()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="systemtasks-writer", daemon=True
            )
            self._thread.start()

    def _drop_one(self) -> None:
        # The oldest success is what is missed least.
        for index, record in enumerate(self._pending):
            if record.state == State.SUCCESS:
                del self._pending[index]
                break
        else:
            self._pending.popleft()
        self._dropped += 1

    def _run(self) -> None:
        next_look = 0.0
        while True:
            if self._work.wait(ORPHAN_INTERVAL):
                self._hurry.wait(conf().BATCH_INTERVAL)
            self._work.clear()
            self._write_pending()
            if time.monotonic() >= next_look:
                self._adopt_orphans()
                next_look = time.monotonic() + ORPHAN_INTERVAL

    def _write_pending(self) -> None:
        while True:
            with self._changed:
                records = list(self._pending)
                self._pending.clear()
                self._writing = len(records)
                segment = self._journal.rotate()
            if not records:
                return
            self._write_all(records, segment)
            with self._changed:
                self._writing = 0
                self._changed.notify_all()

    def _adopt_orphans(self) -> None:
        for segment in self._journal.orphans():
            try:
                records = list(segment.records())
            except OSError as error:
                logger.warning("%s cannot be read: %s", segment.path, error)
                segment.close()
                continue
            if records:
                logger.warning("%d task runs of a dead process are recorded now", len(records))
            self._write_all(records, segment)

    def _write_all(self, records: list[RunRecord], segment: Segment | None) -> None:
        limit = conf().BATCH_LIMIT
        for begin in range(0, len(records), limit):
            self._write_until_done(records[begin : begin + limit])
        if segment is not None:
            segment.remove()

    def _write_until_done(self, batch: list[RunRecord]) -> None:
        pause = 0.1
        since: float | None = None
        while True:
            try:
                self._write_or_split(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records must stay
                connections[conf().DATABASE].close()
                if since is None:
                    since = time.monotonic()
                    logger.warning("Task runs wait: the database does not take them (%s)", error)
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                break
        if since is not None:
            logger.warning("Task runs are recorded again, after %.1f s", time.monotonic() - since)
        if self._dropped:
            with self._changed:
                dropped, self._dropped = self._dropped, 0
            logger.error("%d task runs are not recorded: too many were waiting", dropped)

    def _write_or_split(self, batch: list[RunRecord]) -> None:
        """Write the batch; one that fails is halved until the bad record stands alone."""
        try:
            write(batch)
        except RECORD_ERRORS:
            if len(batch) == 1:
                name, celery_id = batch[0].name, batch[0].celery_id
                logger.exception("The run %s of %s cannot be recorded", celery_id, name)
                return
            middle = len(batch) // 2
            self._write_or_split(batch[:middle])
            self._write_or_split(batch[middle:])


writer = Writer()
"""This process's writer."""

os.register_at_fork(after_in_child=writer.reset)
atexit.register(writer.flush_at_exit)
