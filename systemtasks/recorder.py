"""A run in flight, and the records that it becomes. Pure: no I/O, no Celery."""

import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from systemtasks.arguments import Arguments, arguments
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
class Sending:
    """What is known of a run from the moment that it is sent."""

    celery_id: str
    attempt: int
    queue: str = ""
    sent: datetime | None = None
    eta: datetime | None = None
    sender: str = ""
    parent_id: str = ""
    root_id: str = ""
    context: str = "{}"


@dataclass(slots=True)
class Run:
    """An attempt in flight: it gathers messages until it is finished."""

    task: TaskInfo
    sending: Sending
    arguments: Arguments
    worker: str
    lease: UUID | None
    conf: Conf
    outer: "Run | None" = None
    lost: bool = False
    """Whether this is what the worker's main process knows of a run that a child had taken."""
    start: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    worst_level: int = logging.NOTSET
    warned: bool = False
    chosen_status: Status | None = None
    exception: str = ""
    ended: bool = False
    uid: str = field(init=False)
    messages: Messages = field(init=False)

    def __post_init__(self) -> None:
        self.uid = self.arguments.uid
        self.messages = Messages(self.conf.MESSAGE_LIMIT, self.conf.MESSAGES_LIMIT)

    @property
    def celery_id(self) -> str:
        """What `.delay()` returned."""
        return self.sending.celery_id

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
        self.worst_level = max(self.worst_level, level)
        self.messages.append(self._event(level, logger, event, attributes, error))

    def progress(self, done: float, total: float | None) -> None:
        """Say how far the run is."""
        if self.ended:
            return
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
        duration = self.age
        self.ended = True
        # From the monotonic clock, so that a step of the system's clock never ends a run
        # before its start.
        finish = self.start + timedelta(seconds=duration)
        record = self._record(state)
        record.finish_timestamp = finish
        record.duration = duration
        record.exception = self.exception
        record.expires = _expiry(self.task, finish)
        record.lease = None if sure else self.lease
        record.lost = self.lease if self.lost else None
        return record

    def in_progress(self) -> RunRecord:
        """The record of this attempt as it stands."""
        record = self._record(State.RUNNING)
        record.lease = self.lease
        return record

    def _record(self, state: State) -> RunRecord:
        sending = self.sending
        ready = max(filter(None, (sending.sent, sending.eta)), default=None)
        record = _record(self.task, sending, self.arguments, state, self.messages.json())
        record.uid = self.uid
        record.status = self._status(state)
        record.worker = self.worker
        record.start_timestamp = self.start
        # Two hosts' clocks may differ by more than the wait.
        record.wait = max((self.start - ready).total_seconds(), 0.0) if ready else None
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
        cleaned = Cleaner(limit, self.conf.HIDDEN_KEYS).clean(dict(attributes))
        if error is not None:
            text = ExceptionText.of(error, limit)
            cleaned["exception"] = {
                "type": text.type,
                "message": text.message,
                "traceback": text.traceback,
            }
        logger = clean_column(logger, NAME_LIMIT)
        return log_event(datetime.now(UTC), level, logger, clean_text(event, limit), cleaned)

    def _status(self, state: State) -> Status:
        if state == State.SUCCESS:
            if self.chosen_status is not None:
                return self.chosen_status
            logged = self.conf.WARNING_FROM_LOGS and self.worst_level >= logging.WARNING
            return Status.WARNING if logged or self.warned else Status.SUCCESSFUL
        if state == State.REVOKED and self.worst_level >= logging.ERROR:
            return Status.ERROR  # it was terminated while it ran
        return STATUS_OF_STATE[state]


def new(
    task: TaskInfo,
    sending: Sending,
    *,
    args: object,
    kwargs: object,
    worker: str,
    lease: UUID | None = None,
    started: datetime | None = None,
    lost: bool = False,
) -> Run:
    """An attempt of this task, which starts now, or started then."""
    run = Run(
        task=task,
        sending=sending,
        arguments=arguments(task, args, kwargs),
        worker=clean_column(worker, NAME_LIMIT),
        lease=lease,
        lost=lost,
        conf=conf(),
    )
    if started is not None:
        run.clock -= max((run.start - started).total_seconds(), 0.0)
        run.start = started
    return run


def queued(task: TaskInfo, sending: Sending, *, args: object, kwargs: object) -> RunRecord:
    """The record of an attempt that has been sent."""
    kept = arguments(task, args, kwargs)
    record = _record(task, sending, kept, State.QUEUED, "[]")
    record.expires = _expiry(task, sending.eta or sending.sent)
    return record


def notice(task: TaskInfo, celery_id: str, level: int, event: str) -> RunRecord:
    """The record of something that is no task's run but belongs beside them."""
    now = datetime.now(UTC)
    sending = Sending(celery_id=celery_id, attempt=1)
    messages = encode([log_event(now, level, task.name, event, {})])
    record = _record(task, sending, Arguments(), State.FAILURE, messages)
    record.start_timestamp = record.finish_timestamp = now
    record.duration = 0.0
    record.exception = event
    record.expires = _expiry(task, now)
    return record


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
    return run if run and run.celery_id == clean_column(celery_id, NAME_LIMIT) else None


def _record(
    task: TaskInfo, sending: Sending, kept: Arguments, state: State, messages: str
) -> RunRecord:
    return RunRecord(
        name=task.name,
        uid=kept.uid,
        description=task.description,
        celery_id=sending.celery_id,
        attempt=sending.attempt,
        state=state,
        status=STATUS_OF_STATE.get(state, Status.UNKNOWN),
        queue=sending.queue,
        worker="",
        sent_timestamp=sending.sent,
        start_timestamp=None,
        finish_timestamp=None,
        wait=None,
        duration=None,
        args=kept.args,
        kwargs=kept.kwargs,
        arguments_intact=kept.intact,
        exception="",
        messages=messages,
        expires=None,
        eta_timestamp=sending.eta,
        sender=sending.sender,
        parent_id=sending.parent_id,
        root_id=sending.root_id,
        context=sending.context,
        first_uid=kept.uid,
        save_run=task.save_on_success or state != State.SUCCESS,
    )


def _expiry(task: TaskInfo, end: datetime | None) -> datetime | None:
    if end is None or task.expires_after is None:
        return None
    try:
        return end + task.expires_after
    except OverflowError:  # it is due in the year 9999
        return None
