"""A run in flight, and the records that it becomes. Pure: no I/O, no Celery."""

import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any
from uuid import UUID

from systemtasks.conf import Conf, conf
from systemtasks.messages import Messages, encode, log_event
from systemtasks.records import NAME_LIMIT, RunRecord, TaskInfo
from systemtasks.states import State, Status
from systemtasks.values import Cleaner, ExceptionText, clean_column, clean_text

STATUS_OF_STATE = {
    State.QUEUED: Status.UNKNOWN,
    State.RUNNING: Status.UNKNOWN,
    State.FAILURE: Status.ERROR,
    State.RETRY: Status.WARNING,
    State.REVOKED: Status.WARNING,
    State.REJECTED: Status.WARNING,
    State.IGNORED: Status.UNKNOWN,
}

current: ContextVar["Run | None"] = ContextVar("systemtasks_run", default=None)
"""The run that the code which asks is part of."""

_ended: ContextVar["Run | None"] = ContextVar("systemtasks_ended_run", default=None)


@dataclass(slots=True)
class Run:
    """An attempt in flight: it gathers messages until it is finished."""

    task: TaskInfo
    sent: RunRecord
    """What is known of it from the moment that it is sent."""
    worker: str
    lease: UUID | None
    conf: Conf
    start: datetime
    clock: float
    """When it started, by the monotonic clock."""
    lost: bool
    """Whether this is what the worker's main process knows of a run that a child had taken."""
    messages: Messages
    uid: str
    outer: "Run | None" = None
    worst_level: int = logging.NOTSET
    warned: bool = False
    chosen_status: Status | None = None
    exception: str = ""
    ended: bool = False
    noted: RunRecord | None = None
    """What was recorded when the task had succeeded, and its `after_return` was still to come."""
    noted_said: int = 0
    """How much it had said by then."""

    @property
    def celery_id(self) -> str:
        """What `.delay()` returned."""
        return self.sent.celery_id

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return max(time.monotonic() - self.clock, 0.0)

    def log(
        self,
        level: int,
        logger: str,
        event: str,
        attributes: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        """Add a message, made safe and bounded."""
        if self.ended:
            return  # a thread that outlived the run
        if level > self.worst_level:
            self.worst_level = level
        self.messages.append(self._event(level, logger, event, attributes, error))

    def progress(self, done: float, total: float | None) -> None:
        """Say how far the run is, in finite numbers."""
        if self.ended or not isfinite(done):
            return
        if total is not None and not isfinite(total):
            total = None
        event = f"{done:g} done"
        if total:
            event = f"{done:g} of {total:g} done ({done / total:.0%})"
        attributes = {"done": done, "total": total}
        self.messages.progress(self._event(logging.INFO, self.task.name, event, attributes))

    def fail(self, error: BaseException) -> None:
        """Note the exception that ends this attempt; it becomes the last message."""
        self.ended = False  # Celery itself may fail once the task is done
        self.exception = ExceptionText.of(error, self.conf.TEXT_LIMIT).line
        self.log(logging.ERROR, self.task.name, self.exception, {}, error)

    def retry(self, reason: BaseException | None, countdown: float | None) -> None:
        """Note why this attempt is tried again, and in how many seconds."""
        event = "Retry" if countdown is None else f"Retry in {countdown:g} s"
        if reason is not None:
            self.exception = ExceptionText.of(reason, self.conf.TEXT_LIMIT).line
            event = f"{event}: {self.exception}"
        attributes = {} if countdown is None else {"countdown": countdown}
        self.log(logging.WARNING, self.task.name, event, attributes, reason)

    def revoke(self, reason: str, *, terminated: bool) -> None:
        """Note why this attempt does not run, or does not run on."""
        self.log(logging.ERROR if terminated else logging.WARNING, self.task.name, reason, {})

    def finish(self, state: State, *, sure: bool = True) -> RunRecord:
        """The record of this attempt, which ends now in this state.

        An end that is not sure gives way to what the worker's main process says of it.
        """
        record = self._record(state)
        record.duration = self.age
        self.ended = True
        # From the monotonic clock, so that a step of the system's clock never ends a run
        # before its start.
        record.finish_timestamp = self.start + timedelta(seconds=record.duration)
        record.expires = _expiry(self.task, record.finish_timestamp)
        record.exception = self.exception
        record.save_run = self.task.save_on_success or state is not State.SUCCESS
        record.lease = None if sure else self.lease
        record.lost = self.lease if self.lost else None
        return record

    def succeed(self) -> RunRecord:
        """The record of this attempt, should its process not live to tell of its end."""
        self.noted = self.finish(State.SUCCESS, sure=False)
        self.noted_said = self.messages.said
        self.ended = False
        return self.noted

    @property
    def noted_success(self) -> RunRecord | None:
        """What was recorded of its success, if it is still all that there is to say."""
        noted = self.noted
        if noted is None or self.noted_said != self.messages.said:
            return None
        same = noted.uid == self.uid and noted.status == self._status(State.SUCCESS)
        return noted if same else None

    def in_progress(self) -> RunRecord:
        """The record of this attempt as it stands."""
        record = self._record(State.RUNNING)
        record.lease = self.lease
        return record

    def _record(self, state: State) -> RunRecord:
        record = self.sent.but(state=state)
        record.uid = self.uid
        record.status = self._status(state)
        record.worker = self.worker
        record.start_timestamp = self.start
        record.messages = self.messages.json()
        ready = record.eta_timestamp or record.sent_timestamp
        if record.eta_timestamp and record.sent_timestamp:
            ready = max(record.eta_timestamp, record.sent_timestamp)
        if ready:
            # Two hosts' clocks may differ by more than the wait.
            record.wait = max((self.start - ready).total_seconds(), 0.0)
        return record

    def _event(
        self,
        level: int,
        logger: str,
        event: str,
        attributes: Mapping[str, object],
        error: BaseException | None = None,
    ) -> dict[str, Any]:
        limit = self.conf.TEXT_LIMIT
        cleaned: dict[str, Any] = {}
        if attributes:
            cleaned = Cleaner(limit, self.conf.HIDDEN_KEYS).clean(dict(attributes))
        if error is not None:
            text = ExceptionText.of(error, limit)
            cleaned["exception"] = {
                "type": text.type,
                "message": text.message,
                "traceback": text.traceback,
            }
        event = clean_text(event, limit)
        return log_event(datetime.now(UTC), level, _name(logger), event, cleaned)

    def _status(self, state: State) -> Status:
        if state == State.SUCCESS:
            if self.chosen_status is not None:
                return self.chosen_status
            logged = self.conf.WARNING_FROM_LOGS and self.worst_level >= logging.WARNING
            return Status.WARNING if logged or self.warned else Status.SUCCESSFUL
        if state == State.REVOKED and self.worst_level >= logging.ERROR:
            return Status.ERROR  # it was terminated while it ran
        return STATUS_OF_STATE[state]


def queued(task: TaskInfo, sent: RunRecord) -> RunRecord:
    """The record of an attempt that has been sent and not begun."""
    return sent.but(expires=_expiry(task, sent.eta_timestamp or sent.sent_timestamp))


def new(
    task: TaskInfo,
    sent: RunRecord,
    *,
    worker: str,
    lease: UUID | None = None,
    started: datetime | None = None,
    lost: bool = False,
) -> Run:
    """An attempt of this task, which starts now, or started then."""
    rules = conf()
    now, clock = datetime.now(UTC), time.monotonic()
    if started is not None:
        clock -= max((now - started).total_seconds(), 0.0)
    return Run(
        task=task,
        sent=sent,
        worker=_name(worker),
        lease=lease,
        conf=rules,
        start=started or now,
        clock=clock,
        lost=lost,
        messages=Messages(rules.MESSAGE_LIMIT, rules.MESSAGES_LIMIT),
        uid=sent.uid,
    )


def notice(task: TaskInfo, celery_id: str, level: int, event: str) -> RunRecord:
    """The record of something that is no task's run but belongs beside them."""
    now = datetime.now(UTC)
    return task.blank.but(
        celery_id=celery_id,
        state=State.FAILURE,
        status=STATUS_OF_STATE[State.FAILURE],
        start_timestamp=now,
        finish_timestamp=now,
        duration=0.0,
        exception=event,
        messages=encode([log_event(now, level, task.name, event, {})]),
        expires=_expiry(task, now),
    )


def start(run: Run, *, nested: bool = False) -> Run:
    """Make this run the current one, inside the one that is current where it is nested."""
    run.outer = current.get() if nested else None
    current.set(run)
    return run


def running(celery_id: str) -> Run | None:
    """The current run, if it is this one."""
    return _if_it_is(celery_id, current.get())


def ended(celery_id: str) -> Run | None:
    """The run that ended last here, if it is this one."""
    return _if_it_is(celery_id, _ended.get())


def end(celery_id: str) -> Run | None:
    """The current run, if it is this one; from now on the one around it is current again."""
    if run := running(celery_id):
        current.set(run.outer)
        _ended.set(run)
    return run


def _if_it_is(celery_id: str, run: Run | None) -> Run | None:
    if run is None or celery_id == run.sent.celery_id:
        return run
    return run if clean_column(celery_id, NAME_LIMIT) == run.sent.celery_id else None


@lru_cache
def _name(name: str) -> str:
    """A logger's or a worker's name, of which there are few, as a column holds it."""
    return clean_column(name, NAME_LIMIT)


def _expiry(task: TaskInfo, end: datetime | None) -> datetime | None:
    if end is None or task.expires_after is None:
        return None
    try:
        return end + task.expires_after
    except OverflowError:  # it is due in the year 9999
        return None
