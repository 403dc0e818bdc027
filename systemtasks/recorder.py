"""A run in flight, and the finished record that it becomes. Pure: no I/O, no Celery."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from systemtasks.conf import Conf, conf
from systemtasks.states import State, Status
from systemtasks.values import Cleaner, ExceptionText, clean_column, clean_text

NAME_LIMIT = 255  # characters; the columns' own

LEVEL_NAMES = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
    (logging.NOTSET, "notset"),
)

current: ContextVar["Run | None"] = ContextVar("systemtasks_run", default=None)
"""The run that the code which asks is part of."""


def level_name(level: int) -> str:
    """The contract's name of a logging level; a custom level has that of the nearest below."""
    return next((name for bound, name in LEVEL_NAMES if level >= bound), "notset")


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is the same in every run of a task."""

    name: str
    description: str
    expires_after: timedelta | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished attempt, ready for the database: JSON is text by now."""

    name: str
    uid: str
    description: str
    celery_id: str
    attempt: int
    state: State
    status: Status
    queue: str
    worker: str
    sent_timestamp: datetime | None
    start_timestamp: datetime
    finish_timestamp: datetime
    wait: float | None
    duration: float
    args: str | None
    kwargs: str | None
    arguments_intact: bool
    exception: str
    messages: str
    expires: datetime | None


class Messages:
    """A run's messages as JSON, bounded in number and size: the first and the last are kept."""

    def __init__(self, count_limit: int, size_limit: int) -> None:
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_left = count_limit // 2
        self._head_room = size_limit // 2
        self._tail_limit = count_limit - count_limit // 2
        self._tail_room = size_limit - size_limit // 2
        self._left_out = 0

    def append(self, message: dict[str, Any]) -> None:
        """Add one LogEvent of the contract, in JSON's own types."""
        text = orjson.dumps(message, option=orjson.OPT_UTC_Z)
        if not self._tail and self._head_left > 0 and len(text) <= self._head_room:
            self._head.append(text)
            self._head_left -= 1
            self._head_room -= len(text)
            return
        self._tail.append(text)
        self._tail_room -= len(text)
        while len(self._tail) > self._tail_limit or (self._tail_room < 0 and len(self._tail) > 1):
            self._tail_room += len(self._tail.popleft())
            self._left_out += 1

    def json(self) -> str:
        """The array of all that is kept, with a message in the gap that says how many are not."""
        gap = []
        if self._left_out:
            event = f"{self._left_out} messages are left out here"
            oldest_after = orjson.loads(self._tail[0])["timestamp"]
            gap = [orjson.dumps(log_event(oldest_after, logging.INFO, __name__, event, {}))]
        return b"".join((b"[", b",".join([*self._head, *gap, *self._tail]), b"]")).decode()


def log_event(
    timestamp: datetime | str, level: int, logger: str, event: str, attributes: dict[str, Any]
) -> dict[str, Any]:
    """A LogEvent, with the keys of authentik's `LogEventSerializer`."""
    return {
        "timestamp": timestamp,
        "log_level": level_name(level),
        "logger": logger,
        "event": event,
        "attributes": attributes,
    }


@dataclass(slots=True)
class Run:
    """An attempt in flight: it gathers messages until it is finished."""

    task: TaskInfo
    celery_id: str
    attempt: int
    queue: str
    worker: str
    sent: datetime | None
    due: datetime | None
    args: str | None
    kwargs: str | None
    arguments_intact: bool
    conf: Conf
    outer: "Run | None" = None
    start: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    worst_level: int = logging.NOTSET
    exception: str = ""
    messages: Messages = field(init=False)

    def __post_init__(self) -> None:
        self.messages = Messages(self.conf.MESSAGE_LIMIT, self.conf.MESSAGES_LIMIT)

    def log(
        self,
        level: int,
        logger: str,
        event: str,
        attributes: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        """Add a message, made safe and bounded."""
        limit = self.conf.TEXT_LIMIT
        cleaned = Cleaner(limit, self.conf.HIDDEN_KEYS).clean(dict(attributes))
        if error is not None:
            text = ExceptionText.of(error, limit)
            cleaned["exception"] = {
                "type": text.type,
                "message": text.message,
                "traceback": text.traceback,
            }
        self.worst_level = max(self.worst_level, level)
        logger = clean_column(logger, NAME_LIMIT)
        event = clean_text(event, limit)
        self.messages.append(log_event(datetime.now(UTC), level, logger, event, cleaned))

    def fail(self, error: BaseException) -> None:
        """Note the exception that ends this attempt; it becomes the last message."""
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

    def finish(self, state: State) -> RunRecord:
        """The record of this attempt, which ends now in this state."""
        duration = max(time.monotonic() - self.clock, 0.0)
        # From the monotonic clock, so that a step of the system's clock never ends a run
        # before its start.
        finish = self.start + timedelta(seconds=duration)
        ready = max(filter(None, (self.sent, self.due)), default=None)
        expires_after = self.task.expires_after
        return RunRecord(
            name=self.task.name,
            uid="",
            description=self.task.description,
            celery_id=self.celery_id,
            attempt=self.attempt,
            state=state,
            status=self._status(state),
            queue=self.queue,
            worker=self.worker,
            sent_timestamp=self.sent,
            start_timestamp=self.start,
            finish_timestamp=finish,
            # Two hosts' clocks may differ by more than the wait.
            wait=max((self.start - ready).total_seconds(), 0.0) if ready else None,
            duration=duration,
            args=self.args,
            kwargs=self.kwargs,
            arguments_intact=self.arguments_intact,
            exception=self.exception,
            messages=self.messages.json(),
            expires=finish + expires_after if expires_after is not None else None,
        )

    def _status(self, state: State) -> Status:
        if state == State.SUCCESS:
            warned = self.conf.WARNING_FROM_LOGS and self.worst_level >= logging.WARNING
            return Status.WARNING if warned else Status.SUCCESSFUL
        if state == State.REVOKED and self.worst_level >= logging.ERROR:
            return Status.ERROR  # it was terminated while it ran
        return STATUS_OF_STATE[state]


STATUS_OF_STATE = {
    State.FAILURE: Status.ERROR,
    State.RETRY: Status.WARNING,
    State.REVOKED: Status.WARNING,
    State.REJECTED: Status.WARNING,
    State.IGNORED: Status.UNKNOWN,
}


def new(
    task: TaskInfo,
    *,
    celery_id: str,
    attempt: int,
    queue: str,
    worker: str,
    sent: datetime | None,
    due: datetime | None,
    args: object,
    kwargs: object,
    started: datetime | None = None,
) -> Run:
    """An attempt of this task, which starts now, or started then."""
    rules = conf()
    kept_args, kept_kwargs, intact = _arguments(rules, args, kwargs)
    run = Run(
        task=task,
        celery_id=clean_column(celery_id, NAME_LIMIT),
        attempt=attempt,
        queue=clean_column(queue, NAME_LIMIT),
        worker=clean_column(worker, NAME_LIMIT),
        sent=sent,
        due=due,
        args=kept_args,
        kwargs=kept_kwargs,
        arguments_intact=intact,
        conf=rules,
    )
    if started is not None:
        run.clock -= max((run.start - started).total_seconds(), 0.0)
        run.start = started
    return run


def start(run: Run) -> Run:
    """Make this run the current one."""
    run.outer = current.get()
    current.set(run)
    return run


def running(celery_id: str) -> Run | None:
    """The current run, if it is this one."""
    run = current.get()
    return run if run and run.celery_id == clean_column(celery_id, NAME_LIMIT) else None


def end(celery_id: str) -> Run | None:
    """The current run, if it is this one; from now on the one around it is current again."""
    if run := running(celery_id):
        current.set(run.outer)
    return run


def _arguments(rules: Conf, args: object, kwargs: object) -> tuple[str | None, str | None, bool]:
    if not rules.RECORD_ARGUMENTS or args is None:
        return None, None, False
    cleaner = Cleaner(rules.ARGUMENTS_LIMIT, rules.HIDDEN_KEYS)
    kept_args = orjson.dumps(cleaner.clean(args))
    kept_kwargs = orjson.dumps(cleaner.clean(kwargs))
    if (size := len(kept_args) + len(kept_kwargs)) > rules.ARGUMENTS_LIMIT:
        note = f"{size} bytes of arguments are more than the {rules.ARGUMENTS_LIMIT} that are kept"
        return orjson.dumps([note]).decode(), "{}", False
    return kept_args.decode(), kept_kwargs.decode(), cleaner.intact
