"""A run in flight, and the entries that tell of it. Pure: no I/O, no Celery."""

import logging
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from math import isfinite
from typing import Any
from uuid import UUID
from weakref import ref

from systemtasks.conf import conf
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.entries import Entry, entry, fields_of
from systemtasks.runs.exceptions import ExceptionText
from systemtasks.runs.kinds import number
from systemtasks.runs.messages import Messages
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.values import Cleaner, clean_column, clean_text
from systemtasks.states import State, Status

current: ContextVar["Run | None"] = ContextVar("systemtasks_run", default=None)
"""The run that the code which asks is part of, as far as its context says so."""

_UNSET = object()
_ATTRIBUTE = "_systemtasks_run"
"""The attribute of a thread that refers to its run, weakly: a thread may live for long."""

_ended: ContextVar["Run | None"] = ContextVar("systemtasks_ended_run", default=None)


class Run:
    """An attempt in flight: it gathers messages until it is finished."""

    # What few runs need is in the class, since a task waits while its run is made.
    from_main_process = False
    """Whether this is what the worker's main process knows of a run that a child had taken."""
    outer: "Run | None" = None
    worst_level: int = logging.NOTSET
    warned = False
    chosen_status: Status | None = None
    exception = ""
    ended = False
    _success: Entry | None = None
    """The provisional end that was submitted when the task had succeeded."""
    _success_facts: tuple[int, str, Status | None]
    """What that end was made of and the task's `after_return` may still change."""

    def __init__(
        self,
        task: TaskInfo,
        request: Mapping[str, Any],
        arguments: Arguments,
        lease: str,
    ) -> None:
        """Start it now. `request` are the fields of Celery's request."""
        self.task = task
        self.request = fields_of(request)
        self.celery_id: Any = request.get("id")
        """What `.delay()` returned, as Celery has it."""
        self.arguments = arguments
        self.uid = arguments.uid
        self.lease = lease
        self.messages = Messages()
        self.start = time.time()
        self.clock = time.monotonic()
        """When it started, by the monotonic clock."""

    def belongs_to_child(self, started: float | None) -> None:
        """Be what the main process knows of this run, which a child had taken.

        It started then, in seconds since 1970, unless it never did.
        """
        self.from_main_process = True
        if started is not None:
            self.clock -= max(self.start - started, 0.0)
            self.start = started

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
        error: ExceptionText | None = None,
        when: float | None = None,
    ) -> None:
        """Add a message, made safe and bounded; it is of now, or of then (seconds since 1970)."""
        if self.ended:
            return  # a thread that outlived the run
        if level > self.worst_level:
            self.worst_level = level
        if attributes or error is not None:
            attributes = _attributes(attributes, error)
        text = clean_text(event, conf().TEXT_LIMIT)
        self.messages.append((when or time.time(), level, _name(logger), text, attributes))

    def progress(self, done: float, total: float | None) -> None:
        """Say how far the run is, in finite numbers; raises TypeError for what is no number."""
        done, total = number(done), None if total is None else number(total)
        if self.ended or not isfinite(done):
            return
        if total is not None and not isfinite(total):
            total = None
        event = f"{done:g} done"
        if total:
            event = f"{done:g} of {total:g} done ({done / total:.0%})"
        attributes = {"done": done, "total": total}
        self.messages.progress((time.time(), logging.INFO, self.task.name, event, attributes))

    def fail(self, error: BaseException, printed: object = None) -> None:
        """Note the exception that ends this attempt; it becomes the last message.

        `printed` is its traceback, where Celery has printed it.
        """
        self.ended = False  # Celery itself may fail once the task is done
        text = ExceptionText.of(error, conf().TEXT_LIMIT, printed)
        self.exception = text.line
        self.log(logging.ERROR, self.task.name, self.exception, {}, text)

    def retry(
        self, reason: BaseException | None, countdown: float | None, printed: object = None
    ) -> None:
        """Note why this attempt is tried again, and in how many seconds.

        `printed` is a traceback with the reason in it, where Celery has printed one.
        """
        event = "Retry" if countdown is None else f"Retry in {countdown:g} s"
        text = None
        if reason is not None:
            text = ExceptionText.of(reason, conf().TEXT_LIMIT, printed)
            self.exception = text.line
            event = f"{event}: {self.exception}"
        attributes = {} if countdown is None else {"countdown": countdown}
        self.log(logging.WARNING, self.task.name, event, attributes, text)

    def revoke(self, reason: str, *, terminated: bool) -> None:
        """Note why this attempt does not run, or does not run on."""
        self.log(logging.ERROR if terminated else logging.WARNING, self.task.name, reason, {})

    def finish(self, state: State, *, provisional: bool = False) -> Entry:
        """End this attempt in this state, and return the entry of it.

        A provisional end gives way to what the worker's main process knows of it.
        """
        self.ended = True
        return self._entry(state, self.age, provisional=provisional)

    def succeed(self) -> Entry:
        """Return the entry of a provisional success, in case the process is killed before its end.

        The task's `after_return` is still to come.
        """
        self._success_facts = self.messages.said, self.uid, self.chosen_status
        self._success = self._entry(State.SUCCESS, self.age, provisional=True)
        return self._success

    def end_as_succeeded(self) -> bool:
        """End this attempt by making its provisional success final.

        Return False, and do nothing, if there is none or the task has added to it since, and if it
        is too late because its record has been read.
        """
        facts = self.messages.said, self.uid, self.chosen_status
        if self._success is None or self._success_facts != facts:
            return False
        self.ended = self._success.make_final()
        return self.ended

    def in_progress(self) -> Entry:
        """Return the entry of this attempt as it stands."""
        return self._entry(State.RUNNING, None)

    def _entry(self, state: State, duration: float | None, *, provisional: bool = False) -> Entry:
        told = {
            "uid": self.uid,
            "status": self._status(state),
            "start": self.start,
            "duration": duration,
            "exception": self.exception,
            "messages": self.messages.told(),
            "lease": None,
        }
        if provisional:
            told["provisional"] = True
        if self.from_main_process:
            told["from_main_process"] = True
        if provisional or self.from_main_process or duration is None:
            told["lease"] = self.lease
        return entry(self.task, self.request, self.arguments, state, told)

    def _status(self, state: State) -> Status:
        if state == State.SUCCESS:
            if self.chosen_status is not None:
                return self.chosen_status
            logged = conf().WARNING_FROM_LOGS and self.worst_level >= logging.WARNING
            return Status.WARNING if logged or self.warned else Status.SUCCESSFUL
        if state == State.REVOKED and self.worst_level >= logging.ERROR:
            return Status.ERROR  # it was terminated while it ran
        return state.outcome.status


def queued(task: TaskInfo, request: Mapping[str, Any], arguments: Arguments) -> Entry:
    """The entry of an attempt that has been sent and not begun."""
    told = {"uid": arguments.uid, "status": State.QUEUED.outcome.status}
    return entry(task, fields_of(request), arguments, State.QUEUED, told)


def current_run() -> Run | None:
    """Return the run of this context or, where the context says nothing, of this thread."""
    run = current.get()
    if run is None and current.get(_UNSET) is _UNSET:
        return assigned(threading.current_thread())
    return run


def assign(thread: threading.Thread, run: Run | None) -> None:
    """Have a thread belong to this run, wherever the context says nothing."""
    vars(thread)[_ATTRIBUTE] = None if run is None else ref(run)


def assigned(thread: threading.Thread) -> Run | None:
    """Return the run that a thread belongs to, if it still exists."""
    reference: ref[Run] | None = vars(thread).get(_ATTRIBUTE)
    return None if reference is None else reference()


def start(run: Run, *, nested: bool = False) -> Run:
    """Make this run the current one, inside the one that is current where it is nested."""
    run.outer = current_run() if nested else None
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


def _if_it_is(celery_id: object, run: Run | None) -> Run | None:
    if run is None or celery_id is run.celery_id:
        return run
    # Celery takes anything for an id.
    kind = type(celery_id)
    is_comparable = kind is type(run.celery_id) and (kind is str or kind is UUID)
    return run if is_comparable and celery_id == run.celery_id else None


@lru_cache
def _name(name: str) -> str:
    """A logger's name, of which there are few, no longer than a column's."""
    return clean_column(name, NAME_LIMIT)


def _attributes(given: Mapping[str, object], error: ExceptionText | None) -> dict[str, Any]:
    """These attributes in JSON's own types, with what is to be said of an exception."""
    rules = conf()
    cleaned: dict[str, Any] = {}
    if given:
        cleaned = Cleaner(rules.TEXT_LIMIT, rules.HIDDEN_KEYS).clean(given)
    if error is not None:
        cleaned["exception"] = {
            "type": error.type,
            "message": error.message,
            "traceback": error.traceback,
        }
    return cleaned
