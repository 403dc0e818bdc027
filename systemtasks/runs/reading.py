"""From a line of the journal to the record of an attempt.

What the line has of Celery's message is as its sender said it, and may be anything.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson

from systemtasks.runs.messages import log_events
from systemtasks.runs.records import NAME_LIMIT, RunRecord
from systemtasks.runs.values import clean_column, moment
from systemtasks.states import State, Status

CONTEXT_LIMIT = 4096  # bytes of JSON
BEAT = "celerybeat@"
"""How the sender of beat's runs begins."""
JUNK_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError)


class Request(NamedTuple):
    """What a line has of Celery's message or request."""

    celery_id: Any
    retries: Any
    eta: Any
    queue: Any
    worker: Any
    sender: Any
    parent_id: Any
    root_id: Any
    of_beat: Any
    sent: Any
    context: Any


def read(line: bytes) -> RunRecord:
    """The record of a line; raises one of JUNK_ERRORS for anything else."""
    told = orjson.loads(line)
    task, request = told["task"], Request(*told["request"])
    state, start, duration = State(told["state"]), moment(told.get("start")), told.get("duration")
    sent, eta = moment(request.sent), moment(request.eta)
    # By the monotonic clock, so that no step of the system's clock ends a run before its start.
    finish = start + timedelta(seconds=duration) if start and duration is not None else None
    celery_id, queue, worker, sender, parent_id, root_id = _columns(
        request.celery_id or "",
        request.queue or "",
        request.worker or "",
        _sender(request),
        request.parent_id or "",
        request.root_id or "",
    )
    return RunRecord(
        name=task["name"],
        description=task["description"],
        uid=told["uid"],
        first_uid=told["first_uid"],
        celery_id=celery_id,
        attempt=_attempt(request.retries),
        state=state,
        status=Status(told["status"]),
        queue=queue,
        worker=worker,
        sender=sender,
        # Celery takes the first attempt for the parent of an orphan's second one.
        parent_id="" if parent_id == celery_id else parent_id,
        root_id=root_id,
        context=_object(request.context),
        sent_timestamp=sent,
        eta_timestamp=eta,
        start_timestamp=start,
        finish_timestamp=finish,
        wait=_wait(sent, eta, start),
        duration=duration,
        args=told["args"],
        kwargs=told["kwargs"],
        arguments_intact=told["intact"],
        exception=told.get("exception", ""),
        messages=log_events(told.get("messages", ())),
        # Of a run in progress as well, which may be left to the reaper.
        expires=_expiry(task["expires_after"], finish or start or eta or sent),
        lease=told.get("lease"),
        provisional=told.get("provisional", False),
        from_main_process=told.get("from_main_process", False),
        save_run=task["save_on_success"] or state is not State.SUCCESS,
    )


def _sender(request: Request) -> object:
    sender = request.sender or ""
    if not request.of_beat:
        return sender
    # Celery calls beat's process `gen123@host`, like any other.
    return f"{BEAT}{str(sender).rpartition('@')[2]}"


def _wait(sent: datetime | None, eta: datetime | None, start: datetime | None) -> float | None:
    """Seconds between when a run was due and its start."""
    ready = max(sent, eta) if sent and eta else sent or eta
    if ready is None or start is None:
        return None
    # Two hosts' clocks may differ by more than the wait.
    return max((start - ready).total_seconds(), 0.0)


def _expiry(seconds: float | None, end: datetime | None) -> datetime | None:
    if seconds is None or end is None:
        return None
    try:
        return end + timedelta(seconds=seconds)
    except OverflowError:  # it is due in the year 9999
        return None


def _attempt(retries: object) -> int:
    """The number of the attempt; 1 where a foreign sender's message says what no column holds."""
    return retries + 1 if type(retries) is int and 0 < retries < 2**31 - 1 else 1


def _columns(*values: object) -> Iterable[str]:
    """These values as texts that columns hold."""
    try:
        # As one text, since nearly all of them are as they should be.
        together = "".join(values)  # type: ignore[arg-type]
    except TypeError:
        together = "\0"
    if clean_column(together, NAME_LIMIT) is together:
        return values  # type: ignore[return-value]
    return [clean_column(str(value), NAME_LIMIT) for value in values]


def _object(text: object) -> str:
    """The text if it is a JSON object that Postgres takes, or else an empty one."""
    if not isinstance(text, str) or len(text) > CONTEXT_LIMIT or "\\u0000" in text:
        return "{}"
    try:
        return text if isinstance(orjson.loads(text), dict) else "{}"
    except ValueError:
        return "{}"
