"""Write runs as rows, in batches, from one thread in each process."""

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from django.apps import apps
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import UndefinedTable

from systemtasks.background import BackgroundThread
from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.journal_line import Entry
from systemtasks.runs.messages import log_events
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import KnownTask, RunRecord, ScheduleRecord
from systemtasks.storage import rows
from systemtasks.storage.connection import name_connection
from systemtasks.storage.dropped import record_of_dropped
from systemtasks.storage.failures import REPORT_INTERVAL, failures
from systemtasks.storage.journal import Segment
from systemtasks.storage.leases import Renewal
from systemtasks.storage.orphans import Reaper
from systemtasks.storage.pending import Batch, Pending
from systemtasks.storage.progress import InProgress
from systemtasks.storage.retention import Retention
from systemtasks.under_test import is_under_test

logger = own_logger(__name__)

LONGEST_PAUSE = 5.0  # seconds at most between two attempts while the database is away
LOOK_INTERVAL = 0.1  # seconds between two checks that the thread is alive, while waiting for it
SEARCH_LIMIT = 500
"""The changed tasks whose texts for the search are written between two batches of runs."""
HOUSEKEEPING_INTERVAL = 5.0  # seconds at most between two searches for files of dead processes

Schedule = Mapping[str, ScheduleRecord]
"""The entries of beat's schedule by their names."""

# Errors of a database that is away, or too busy for now.
DATABASE_ERRORS = (OperationalError, InterfaceError)

# Errors caused by a record, not by the database or the connection.
RECORD_ERRORS = (DataError, IntegrityError, ValueError, TypeError, OverflowError)


class Writer:
    """Takes entries from any thread, and writes them from a thread of its own."""

    def __init__(self) -> None:
        self._pending = Pending()
        self._in_flight: Batch | None = None
        self._thread = BackgroundThread(self._run, name="systemtasks-writer", after_fork=self.reset)
        self.reset()

    def reset(self) -> None:
        """Forget everything, as a forked child must: the entries so far are its parent's."""
        self._pending.forget()
        if self._in_flight is not None:
            for segment in self._in_flight.segments:
                segment.close()
        self._pending = Pending()
        self._in_flight = None
        self._in_progress = InProgress()
        self._announced: list[KnownTask] = []
        self._unrecorded: list[str] = []
        self._schedules: dict[str, Schedule] = {}
        """The schedules that are to be written, by their apps."""
        self._written_schedules: dict[str, Schedule] = {}
        self._renewal = Renewal()
        self._reaper = Reaper()
        self._retention = Retention()
        self._texts_changed = False
        """True if the texts for the search may not be up to date."""
        self._next_housekeeping = 0.0
        self._next_close = 0.0  # when the connection is no longer kept, by the monotonic clock
        # Reentrant, because a finalizer or a logging handler may send a task while it is held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._takes_entries = False  # known once one was taken, until `discard`
        self._hurry = threading.Event()
        self._work = threading.Event()
        self._due = 0.0  # when the next batch is written, by the monotonic clock
        self._given_up = False
        self._without_tables = float("-inf")
        """When the last attempt began for which tables were missing, by the monotonic clock."""
        self.under_test: Callable[[Entry], None] | None = None
        """A function to which entries are passed in a process that runs tests; None drops them."""

    def submit(self, entry: Entry) -> None:
        """Take an entry to be written. Never wait for the database; return within microseconds.

        When this returns, the entry is in the journal, or `under_test` has been called with it.
        """
        with self._lock:  # not self._changed, since a Condition is slower
            if taken := self._takes_entries or not is_under_test():
                self._takes_entries = True
                self._pending.add(entry)
        if taken:
            self._wake()
        elif self.under_test is not None:
            self.under_test(entry)

    def write(self, entry: Entry) -> None:
        """Write an entry in this thread, and in its transaction if it is in one."""
        self._write_or_split(_records([entry]))

    def watch(self, run: Run) -> None:
        """Write a row for this run if it is still in progress when the next batch is written.

        When this returns, its beginning is in the journal, in case the process is killed.
        """
        self._in_progress.add(run)
        with self._lock:
            if self._takes_entries or not is_under_test():
                self._takes_entries = True
                self._pending.begin(run)
        self._wake()

    def unwatch(self, run: Run) -> None:
        """Stop watching this run, whose end has been submitted."""
        self._in_progress.remove(run)
        self.forget_beginning(run)

    def forget_beginning(self, run: Run) -> None:
        """Remove the beginning of this run from the journal."""
        with self._lock:
            self._pending.end(run)

    def announce(self, tasks: Sequence[KnownTask]) -> None:
        """Write and keep a row for each of these tasks, even if none of its runs has a row."""
        with self._changed:
            self._announced += tasks
            self._retention.keep(tasks)
        self._wake()

    def leave_out(self, names: Sequence[str]) -> None:
        """Delete what others record of these tasks because they do not know their options."""
        self._unrecorded += names

    def write_schedule(self, app: str, schedule: Schedule) -> None:
        """Write the entries of an app's schedule, by their names. The last call counts."""
        with self._changed:
            self._schedules[app] = schedule
        self._wake()

    def start(self) -> None:
        """Start the thread if it does not run. It also writes the journals of dead processes."""
        self._start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all entries are written, at most `timeout` seconds (default: FLUSH_TIMEOUT).

        Return True if they are. A dead thread is started again; if it dies again, stop waiting.
        Stop as well once tables turn out to be missing: nobody creates them meanwhile.
        """
        if is_under_test():
            self.discard()
        if not (self._pending or self._in_flight is not None or self._thread.is_alive):
            return True
        self._hurry.set()
        self._work.set()
        self._start(at_once=True)
        with self._changed:
            done = self._wait(conf().FLUSH_TIMEOUT if timeout is None else timeout)
            self._pending.tidy()
        self._hurry.clear()
        self._given_up = not done
        if not done:
            left = len(self._pending) + len(self._in_flight.entries if self._in_flight else ())
            event = "The database is away: %d task runs stay in the journal"
            if self._without_tables > float("-inf"):
                event = "Tables are missing (migrate): %d task runs stay in the journal"
            if not self._thread.is_alive:
                event = "The writer of task runs is dead: %d task runs stay in the journal"
            logger.error(event, left)
        return done

    def discard(self) -> None:
        """Drop all entries, also those in the journal, because this process runs tests."""
        with self._changed:
            self._takes_entries = False
            self._pending.discard()
            if self._in_flight is not None:
                while self._in_flight.segments:
                    self._in_flight.segments.pop().remove()
            self._in_flight = None
            self._announced.clear()
            self._schedules.clear()
            self._changed.notify_all()

    def flush_at_exit(self) -> None:
        """Flush, unless the last flush has timed out, as in the worker's shutdown."""
        if not self._given_up:
            self.flush()

    def _wait(self, timeout: float) -> bool:
        """Return True once all is written, or False after `timeout` seconds or without a thread."""
        began = time.monotonic()
        while self._pending or self._in_flight is not None:
            left = began + timeout - time.monotonic()
            if left <= 0 or not self._thread.is_alive or self._without_tables >= began:
                return False
            self._changed.wait(min(left, LOOK_INTERVAL))
        return True

    def _wake(self) -> None:
        if not self._work.is_set():
            self._due = time.monotonic() + conf().BATCH_INTERVAL
            self._work.set()
        if not self._thread.is_running:
            self._start()

    def _start(self, *, at_once: bool = False) -> None:
        """Start the thread unless it runs, has died just now, or this process runs tests."""
        if not (self._thread.is_alive or is_under_test()):
            self._thread.start(at_once=at_once)

    def _run(self) -> None:
        """Write until the process ends, beginning with what a previous thread has left."""
        self._work.set()
        _leave_pool()
        self._write_forever()

    def _write_forever(self) -> None:
        """Write until the process ends, or turns out to run tests."""
        while not apps.ready:  # only then it is known if this process runs tests
            time.sleep(conf().BATCH_INTERVAL)
            self._due = time.monotonic() + conf().BATCH_INTERVAL
        name_connection(connections[conf().DATABASE])
        while True:
            try:
                if self._work.wait(self._in_progress.patience(_housekeeping_interval())):
                    self._hurry.wait(max(self._due - time.monotonic(), 0.0))
                self._work.clear()
                _stop_under_test()
                with _no_coroutine():
                    self._write_pending()
                    self._housekeep()
                    self._close_idle_connection()
            except _UnderTestError:
                self.discard()
                _disconnect()
                return
            except (Exception, SystemExit):
                failures.count("the writer's thread")
                logger.exception("The writer of task runs goes on after an error of its own")
                time.sleep(LONGEST_PAUSE)
                self._work.set()  # to write what it was about to write

    def _keep_connection(self) -> None:
        """Keep the connection open for CONNECTION_IDLE_SECONDS from now on."""
        self._next_close = time.monotonic() + conf().CONNECTION_IDLE_SECONDS

    def _close_idle_connection(self) -> None:
        """Close the connection, if it is open and has not been used for so long."""
        if time.monotonic() >= self._next_close:
            _disconnect()

    def _write_pending(self) -> None:
        in_progress = self._in_progress.entries()
        while True:
            with self._changed:
                # A previous thread may have died with a batch in flight.
                batch = self._in_flight = self._in_flight or self._pending.take()
            if batch is None:
                break
            # Written in one transaction, with ends after starts.
            records = _records([*in_progress, *batch.entries])
            self._write_until_done([*records, *self._dropped()])
            in_progress = []
            try:
                self._pending.done(batch)
            finally:
                with self._changed:
                    self._in_flight = None
                    self._changed.notify_all()
            with self._changed:
                # Entries added meanwhile wait for the next turn, because small batches cost more.
                if self._work.is_set() and not self._pending.more_than_one_batch:
                    break
        if in_progress:
            self._write_until_done(_records(in_progress))
        with self._changed:
            self._pending.rest()

    def _dropped(self) -> list[RunRecord]:
        """Return a record of how many runs were dropped since the last one, or an empty list.

        Runs are dropped only when another is added, so there is a batch to write the record with.
        """
        with self._changed:
            dropped, self._pending.dropped = self._pending.dropped, 0
        if not dropped:
            return []
        record = record_of_dropped(dropped)
        logger.error(record.exception)
        return [record]

    def _write_until_done(self, records: list[RunRecord]) -> None:
        """Write the records. While the database refuses, report it and try again."""
        pause = 0.1
        began, next_report = time.time(), 0.0
        while True:
            _stop_under_test()
            attempt, hurried = time.monotonic(), self._hurry.is_set()
            try:
                self._write_or_split(records)
            except Exception as error:  # noqa: BLE001 - whatever it is, no record may be lost
                _disconnect()
                if isinstance(error.__cause__, UndefinedTable):
                    self._without_tables = attempt
                if not isinstance(error, DATABASE_ERRORS):
                    failures.report("a batch of task runs is not written")
                if time.monotonic() >= next_report:
                    next_report = time.monotonic() + REPORT_INTERVAL
                    self._report_waiting(len(records), began, error)
                # A flush asks for one more attempt, made at once.
                (time.sleep if hurried else self._hurry.wait)(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._without_tables = float("-inf")
                break
        self._texts_changed = True
        self._keep_connection()
        if next_report:
            logger.warning("Task runs are recorded again, after %.1f s", time.time() - began)

    def _report_waiting(self, count: int, began: float, error: Exception) -> None:
        """Log the number of runs that wait, `count` and those behind them, and since when."""
        since = datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
        event = "Task runs wait: the database does not take them (%s); %d since %s"
        logger.warning(event, error, count + len(self._pending), since)

    def _write_or_split(self, records: list[RunRecord]) -> None:
        """Write the records. Halve a batch that fails, until the bad record is alone."""
        try:
            rows.write(records)
        except RECORD_ERRORS as error:
            if len(records) > 1:
                middle = len(records) // 2
                self._write_or_split(records[:middle])
                self._write_or_split(records[middle:])
                return
            self._write_without_values(records[0], error)

    def _write_without_values(self, record: RunRecord, error: Exception) -> None:
        """Write the record without the values that come from the task."""
        celery_id, name = record.celery_id, record.name
        logger.error("The run %s of %s is recorded in part: %s", celery_id, name, error)
        event = f"The messages and arguments of this run cannot be recorded: {type(error).__name__}"
        bare = replace(
            record,
            args=None,
            kwargs=None,
            arguments_intact=False,
            exception=event,
            messages=log_events([(time.time(), logging.ERROR, name, event, {})]),
            context="{}",
        )
        try:
            rows.write([bare])
        except RECORD_ERRORS:
            failures.count("a run is not recorded")
            logger.exception("The run %s of %s is not recorded", celery_id, name)

    def _housekeep(self) -> None:
        now = time.monotonic()
        if now < self._next_housekeeping and not self._announced and not self._schedules:
            return
        self._next_housekeeping = now + _housekeeping_interval()
        _stop_under_test()
        for step in (
            self._keep_leases,
            self._announce,
            self._delete_unrecorded,
            self._write_schedules,
            self._write_search_texts,
            self._delete_expired,
        ):
            try:
                step()
            except DATABASE_ERRORS as error:
                _disconnect()
                logger.debug("Not now: %s", error)
                break  # the next step would wait for the same database
            except Exception:  # noqa: BLE001 - the other steps go on
                _disconnect()
                failures.report(f"housekeeping, in {step.__name__.strip('_')}")
        self._write_abandoned()

    def _keep_leases(self) -> None:
        """Renew this process's lease, and end the runs of workers that do not renew theirs."""
        if self._renewal.renew():
            for app, schedule in self._written_schedules.items():
                rows.write_schedule(app, (), schedule)
            self._keep_connection()
            self._reaper.reap()

    def _delete_expired(self) -> None:
        """Delete a batch of expired rows. If there may be more, do it again at once."""
        if self._retention.delete():
            self._keep_connection()
            self._next_housekeeping = 0.0
            self._wake()

    def _write_search_texts(self) -> None:
        """Write some of the texts for the search, if this process may have changed any."""
        if not self._texts_changed:
            return  # an idle process lets its connection go
        changes = rows.write_search_texts(SEARCH_LIMIT)
        # While another process writes texts, it may not see the last changes of this one.
        self._texts_changed = changes is None or changes >= SEARCH_LIMIT
        if changes is not None and changes >= SEARCH_LIMIT:
            self._next_housekeeping = 0.0
            self._wake()

    def _delete_unrecorded(self) -> None:
        if self._unrecorded:
            rows.delete_unrecorded(self._unrecorded)

    def _announce(self) -> None:
        with self._changed:
            announced = list(self._announced)
        if announced:
            try:
                rows.announce(announced)
            except RECORD_ERRORS:
                failures.count("tasks that have not run yet are not recorded")
                logger.exception("The tasks that have not run yet are not recorded")
            self._keep_connection()
            with self._changed:
                del self._announced[: len(announced)]

    def _write_schedules(self) -> None:
        with self._changed:
            schedules, self._schedules = self._schedules, {}
        for app, schedule in schedules.items():
            try:
                before = self._written_schedules.get(app, {})
                changed = [one for name, one in schedule.items() if one != before.get(name)]
                rows.write_schedule(app, changed, schedule, before.keys() - schedule)
                self._written_schedules[app] = schedule
            except RECORD_ERRORS:
                failures.count("a schedule is not recorded")
                logger.exception("The schedule of beat is not recorded")
            except Exception:
                with self._changed:
                    self._schedules = {**schedules, **self._schedules}
                raise

    def _write_abandoned(self) -> None:
        """Write the runs in the journals of dead processes."""
        for segment in self._pending.abandoned():
            try:
                self._write_segment(segment)
            except OSError as error:
                logger.warning("%s cannot be read: %s", segment.path, error)
                segment.close()
            except BaseException:
                segment.close()
                raise

    def _write_segment(self, segment: Segment) -> None:
        records, count = segment.records(), 0
        while batch := list(islice(records, conf().BATCH_LIMIT)):
            self._write_until_done(batch)
            count += len(batch)
        segment.remove()
        if count:
            logger.warning("%d task runs of a dead process are recorded now", count)


class _UnderTestError(Exception):
    """The process runs tests, which was not known when the thread started."""


def _stop_under_test() -> None:
    """Raise _UnderTestError if this process runs tests. Call this before using the database."""
    if is_under_test():
        raise _UnderTestError


def _records(entries: list[Entry]) -> list[RunRecord]:
    records = []
    for entry in entries:
        try:
            records.append(entry.record())
        except Exception:
            failures.count("a run is not recorded")
            # Without the line itself, in which there may be secrets.
            logger.exception("A task run is not recorded, of %d bytes", len(entry.line))
    return records


@contextmanager
def _no_coroutine() -> Iterator[None]:
    """Tell Django that this thread runs no coroutine.

    With gevent, a task's `asyncio.run` appears to run in all greenlets of the process, including
    this one, and Django refuses to use its connections there.
    """
    if "DJANGO_ALLOW_ASYNC_UNSAFE" in os.environ or not _is_a_greenlet():
        yield
        return
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        yield
    finally:
        os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE", None)


def _is_a_greenlet() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _leave_pool() -> None:
    """Give this thread a connection of its own if the project's are of a pool.

    Celery closes the pool of a process after each task, whichever thread uses it.
    """
    alias = conf().DATABASE
    shared = connections[alias]
    if shared.settings_dict["OPTIONS"].get("pool"):
        own: BaseDatabaseWrapper = shared.copy()
        own.settings_dict["OPTIONS"].pop("pool")
        connections[alias] = own


def _disconnect() -> None:
    """Close this thread's connection. Ignore errors."""
    with suppress(Exception):
        connections[conf().DATABASE].close()


def _housekeeping_interval() -> float:
    return min(HOUSEKEEPING_INTERVAL, conf().LEASE_SECONDS / 4)


writer = Writer()
"""The writer of this process."""

atexit.register(writer.flush_at_exit)
