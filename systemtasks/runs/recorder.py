"""A run in flight, and its entries for the journal. Does no I/O and does not import Celery."""

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
from systemtasks.ids import new_id
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.exceptions import ExceptionText
from systemtasks.runs.journal_line import (
    EXECUTION,
    UUID_LENGTH,
    Entry,
    Line,
    RequestFields,
    encode,
    make_entry,
    request_fields,
    shortened,
    task_fields,
)
from systemtasks.runs.kinds import is_of, number
from systemtasks.runs.messages import EXCEPTION, Messages
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.secret_texts import OwnSecrets
from systemtasks.runs.sent_options import without_own_secrets
from systemtasks.runs.values import Cleaner, clean_column, clean_text, describe
from systemtasks.states import State, Status

current: ContextVar["Run | None"] = ContextVar("systemtasks_run", default=None)
"""The run of the current code, if it is set in the context."""

_UNSET = object()
_ATTRIBUTE = "_systemtasks_run"
"""The attribute of a thread with a weak reference to its run, since the thread may outlive it."""

_ended: ContextVar["Run | None"] = ContextVar("systemtasks_ended_run", default=None)


class Run:
    """A run in flight, which collects messages until it is finished."""

    # Defaults are in the class, because a task waits while its run is created.
    replaced_by: str | None = None
    """The id of the run that this one had `self.replace` send."""
    from_main_process = False
    """True in the worker's main process, for a run that a child process had started."""
    outer: "Run | None" = None
    signal_id: Any = None
    """The id of the run in Celery's signals, if that is not its Celery id."""
    members: "list[Run]" = []  # noqa: RUF012 - replaced, and never changed
    """The runs of the messages in a batch of celery-batches."""
    stored: tuple[object, object] | None = None
    """The state that the task itself stored last, and its metadata."""
    worst_level: int = logging.NOTSET
    warned = False
    chosen_status: Status | None = None
    exception = ""
    last_logged = ""
    """The last exception that was logged."""
    ended = False
    _last: tuple[int, str, ExceptionText | None, Mapping[str, object]] | None = None
    """The level, event, exception and attributes of the message that says how the attempt ends."""
    _success: Entry | None = None
    """The provisional end that was submitted when the task succeeded."""
    _success_facts: tuple[int, str, Status | None]
    """The values in that end which the task's `after_return` may still change."""

    def __init__(
        self,
        task: TaskInfo,
        request: Mapping[str, Any],
        arguments: Arguments,
        lease: str,
    ) -> None:
        """Start the run now. `request` has the fields of Celery's request."""
        self.task = task
        self.request = request_fields(request)
        execution = request.get(EXECUTION)
        self.execution: str = execution if type(execution) is str else new_id()
        """The id of this execution of its message, which no other one shares."""
        self._own = own = arguments.own
        if own is not None:
            _mask_request(self.request, own)
        self.celery_id: Any = request.get("id")
        """The id that `.delay()` returned. It may have any type."""
        self.nesting = request.get("replaced_task_nesting") or 0
        """How many tasks have replaced one another before this one."""
        self.arguments = arguments
        self.uid = arguments.uid
        self.lease = lease
        self.messages = Messages()
        self.start = time.time()
        self.clock = time.monotonic()
        """The start by the monotonic clock, in seconds."""

    @property
    def id(self) -> str:
        """Return the id of its row, unless another execution of its message has that already."""
        run = self.request.get("run")
        return run if type(run) is str and len(run) == UUID_LENGTH else self.execution

    def has_celery_id(self, celery_id: object) -> bool:
        """Return True if this is the id that `.delay()` returned."""
        return celery_id is self.celery_id or _are_equal(celery_id, self.celery_id)

    def belongs_to_child(self, started: float | None) -> None:
        """Mark this run, recorded by the worker's main process, as a child process's run.

        `started` is when the child started it, in seconds since 1970, or None if it never did.
        """
        self.from_main_process = True
        if started is not None:
            self.clock -= max(self.start - started, 0.0)
            self.start = started

    @property
    def age(self) -> float:
        """Return the seconds since its start."""
        return max(time.monotonic() - self.clock, 0.0)

    def set_uid(self, uid: str) -> None:
        """Set the uid. Values that are masked in the arguments are masked in it, too."""
        own = self._own
        self.uid = uid if own is None else own.mask(uid)

    def log(
        self,
        level: int,
        logger: str,
        event: str,
        attributes: Mapping[str, object],
        error: ExceptionText | None = None,
        when: float | None = None,
    ) -> None:
        """Add a message, made safe and bounded.

        `when` is in seconds since 1970; the default is now.
        """
        if self.ended:
            return  # a thread that outlived the run
        if level > self.worst_level:
            self.worst_level = level
        if error is not None:
            self.last_logged = error.line if self._own is None else self._own.mask(error.line)
        if attributes or error is not None:
            attributes = self._attributes(attributes, error)
        text = clean_text(event, conf().TEXT_LIMIT)
        if self._own is not None:
            text = self._own.mask(text)
        self.messages.append((when or time.time(), level, _name(logger), text, attributes))

    def progress(self, done: float, total: float | None) -> None:
        """Record how far the run is.

        Ignore numbers that are not finite. Raise TypeError for any other object.
        """
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
        """Record the exception that ends this attempt as its last message.

        Other receivers of Celery's signals may log after this: django-structlog's `task_failed`.
        `printed` is the traceback as text, if Celery has made one.
        """
        self.ended = False  # Celery itself may fail once the task is done
        text = self._text_of(error, printed)
        self.exception = text.line
        self._end_with(logging.ERROR, self.exception, text)

    def retry(
        self, reason: BaseException | None, countdown: float | None, printed: object = None
    ) -> None:
        """Record why the run will be tried again, and in how many seconds (`countdown`).

        `printed` is a traceback as text that includes the reason, if Celery has made one.
        """
        event = "Retry" if countdown is None else f"Retry in {countdown:g} s"
        text = None
        if reason is not None:
            text = self._text_of(reason, printed)
            self.exception = text.line
            event = f"{event}: {self.exception}"
        attributes = {} if countdown is None else {"countdown": countdown}
        self._end_with(logging.WARNING, event, text, attributes)

    def revoke(self, reason: str, *, terminated: bool) -> None:
        """Record why this attempt does not start, or was terminated."""
        self._end_with(logging.ERROR if terminated else logging.WARNING, reason)

    def fail_as_stored(self, meta: object) -> None:
        """Record a failure that the task itself has stored, with its metadata."""
        event, attributes = "The task has stored FAILURE as its state", {"meta": meta}
        if is_of(meta, dict) and (kind := dict.get(meta, "exc_type")) is not None:
            limit = conf().TEXT_LIMIT
            event = describe(kind, limit)
            if (message := dict.get(meta, "exc_message")) is not None:
                event = clean_text(f"{event}: {describe(message, limit)}", limit)
        self.exception = event if self._own is None else self._own.mask(event)
        self._end_with(logging.ERROR, event, attributes=attributes)

    def end_with_batch(self, batch: "Run", state: State) -> Entry:
        """Give this run the start and the end of the batch that handled its message."""
        self.start, self.clock = batch.start, batch.clock
        self.worst_level, self.warned = batch.worst_level, batch.warned
        self.chosen_status, self.exception = batch.chosen_status, batch.exception
        level = logging.ERROR if state.outcome.status is Status.ERROR else logging.INFO
        event = f"Ran in the batch {batch.celery_id}"
        self._end_with(level, f"{event}: {batch.exception}" if batch.exception else event)
        return self.finish(state)

    def _end_with(
        self,
        level: int,
        event: str,
        error: ExceptionText | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """Make this the message that is added last, when the attempt is finished."""
        self._log_last()
        self._last = level, event, error, attributes or {}

    def _log_last(self) -> None:
        if self._last is not None:
            (level, event, error, attributes), self._last = self._last, None
            self.log(level, self.task.name, event, attributes, error)

    def finish(self, state: State, *, provisional: bool = False) -> Entry:
        """End this attempt in this state, and return its entry.

        An end recorded by the worker's main process replaces a provisional one.
        """
        self._log_last()
        if state is State.FAILURE and not self.exception:
            self.exception = self.last_logged  # celery-batches reports it in no other way
        self.ended = True
        return self._entry(state, self.age, provisional=provisional)

    def succeed(self) -> Entry:
        """Return the entry of a provisional success.

        It counts if the process is killed before the end, while `after_return` runs, for example.
        """
        self._success_facts = self.messages.added, self.uid, self.chosen_status
        self._success = self._entry(State.SUCCESS, self.age, provisional=True)
        return self._success

    def end_as_succeeded(self) -> bool:
        """End this attempt by making its provisional success final.

        Return False if there is none, if the run has changed since, or if the entry has been read
        already. The attempt is then not ended.
        """
        facts = self.messages.added, self.uid, self.chosen_status
        if self._success is None or self._success_facts != facts:
            return False
        self.ended = self._success.make_final()
        return self.ended

    def in_progress(self) -> Entry:
        """Return the entry of this attempt while it runs."""
        return self._entry(State.RUNNING, None)

    def beginning(self, limit: int) -> bytes | None:
        """Return the line of this attempt while it runs, or None if it exceeds `limit` bytes.

        If the whole line is too long, parts such as the arguments are left out.
        """
        line = self._line(State.RUNNING, None)
        text = encode(line)
        if len(text) > limit:
            text = encode(shortened(line, self.task))
        return text if len(text) <= limit else None

    def _entry(self, state: State, duration: float | None, *, provisional: bool = False) -> Entry:
        return make_entry(self._line(state, duration, provisional=provisional))

    def _line(self, state: State, duration: float | None, *, provisional: bool = False) -> Line:
        args, kwargs, intact, first_uid, _, types = self.arguments
        line: Line = {
            "task": task_fields(self.task),
            "request": self.request,
            "state": state,
            "status": self._status(state),
            "uid": self.uid,
            "first_uid": first_uid,
            "args": args,
            "kwargs": kwargs,
            "arguments_intact": intact,
            "start": self.start,
            "duration": duration,
            "exception": self.exception,
            "messages": self.messages.for_journal(),
            "execution": self.execution,
        }
        # A field that is left out takes no memory while the line waits for the database.
        if types is not None:
            line["argument_types"] = types
        if provisional:
            line["provisional"] = True
        if self.from_main_process:
            line["from_main_process"] = True
        if provisional or self.from_main_process or duration is None:
            line["lease"] = self.lease
        if self.replaced_by is not None:
            line["replaced_by"] = self.replaced_by
        return line

    def _text_of(self, error: BaseException, printed: object) -> ExceptionText:
        return ExceptionText.of(error, conf().TEXT_LIMIT, printed).masked(self._own)

    def _attributes(
        self, given: Mapping[str, object], error: ExceptionText | None
    ) -> dict[str, Any]:
        """Return attributes in JSON's own types. Include the exception's texts if there is one."""
        own = self._own
        cleaned: dict[str, Any] = {}
        if given:
            cleaned = Cleaner(conf().TEXT_LIMIT, own=own).clean(given)
        if error is not None:
            error = error.masked(own)
            cleaned[EXCEPTION] = {
                "type": error.type,
                "message": error.message,
                "traceback": error.traceback,
            }
        return cleaned

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
    """Return the entry of an attempt that has been sent and has not started."""
    args, kwargs, intact, uid, own, types = arguments
    fields = request_fields(request)
    if own is not None:
        _mask_request(fields, own)
    line: Line = {
        "task": task_fields(task),
        "request": fields,
        "state": State.QUEUED,
        "status": State.QUEUED.outcome.status,
        "uid": uid,
        "first_uid": uid,
        "args": args,
        "kwargs": kwargs,
        "arguments_intact": intact,
    }
    if types is not None:
        line["argument_types"] = types
    return make_entry(line)


def current_run() -> Run | None:
    """Return the run of this context or, if none was ever set in it, of this thread."""
    run = current.get()
    if run is None and current.get(_UNSET) is _UNSET:
        return assigned(threading.current_thread())
    return run


def assign(thread: threading.Thread, run: Run | None) -> None:
    """Assign a thread to this run. It counts in contexts where no run was ever set."""
    vars(thread)[_ATTRIBUTE] = None if run is None else ref(run)


def assigned(thread: threading.Thread) -> Run | None:
    """Return the run that a thread is assigned to, if it still exists."""
    reference: ref[Run] | None = vars(thread).get(_ATTRIBUTE)
    return None if reference is None else reference()


def start(run: Run, *, nested: bool = False) -> Run:
    """Make this run the current one. If nested, the one before is current again after its end."""
    run.outer = current_run() if nested else None
    current.set(run)
    return run


def running(celery_id: str) -> Run | None:
    """Return the current run if it has this Celery id."""
    return _if_it_is(celery_id, current.get())


def ended(celery_id: str) -> Run | None:
    """Return the run that ended last in this context if it has this Celery id."""
    return _if_it_is(celery_id, _ended.get())


def end(celery_id: str) -> Run | None:
    """Return the current run if it has this Celery id, and make its outer run the current one."""
    if run := running(celery_id):
        current.set(run.outer)
        _ended.set(run)
    return run


def _if_it_is(celery_id: object, run: Run | None) -> Run | None:
    if run is None or run.has_celery_id(celery_id) or _are_equal(celery_id, run.signal_id):
        return run
    return None


def _are_equal(one: object, other: object) -> bool:
    # Celery accepts an id of any type.
    kind = type(one)
    return kind is type(other) and (kind is str or kind is UUID) and one == other


@lru_cache
def _name(name: str) -> str:
    """Return a logger's name, cut to the length of a column. Cached, since there are few."""
    return clean_column(name, NAME_LIMIT)


def _mask_request(fields: RequestFields, own: OwnSecrets) -> None:
    """Mask these values in the sender's context, and leave out headers that contain them."""
    if type(context := fields.get("context")) is str:
        fields["context"] = own.mask(context)
    if (options := fields.get("options")) is not None:
        fields["options"] = without_own_secrets(options, own)
