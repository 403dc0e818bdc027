"""Decode a line of the journal to the record of an attempt.

The fields that come from Celery's message are as the sender wrote them, and may have any value.
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
"""The prefix of the sender of a run that beat sent."""
JUNK_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError)


class Request(NamedTuple):
    """The fields of Celery's message or request that a line contains."""

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
    """Return the record of a line. Raise one of JUNK_ERRORS if it is not a valid line."""
    fields = orjson.loads(line)
    task, request = fields["task"], Request(*fields["request"])
    state, start, duration = (
        State(fields["state"]),
        moment(fields.get("start")),
        fields.get("duration"),
    )
    sent, eta = moment(request.sent), moment(request.eta)
    # The duration is measured by the monotonic clock, so a change of the system's clock cannot end
    # a run before its start.
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
        uid=fields["uid"],
        first_uid=fields["first_uid"],
        celery_id=celery_id,
        attempt=_attempt(request.retries),
        state=state,
        status=Status(fields["status"]),
        queue=queue,
        worker=worker,
        sender=sender,
        # When an orphaned run is sent again, Celery names the first attempt as its parent.
        parent_id="" if parent_id == celery_id else parent_id,
        root_id=root_id,
        context=_object(request.context),
        sent_timestamp=sent,
        eta_timestamp=eta,
        start_timestamp=start,
        finish_timestamp=finish,
        wait=_wait(sent, eta, start),
        duration=duration,
        args=fields["args"],
        kwargs=fields["kwargs"],
        arguments_intact=fields["intact"],
        exception=fields.get("exception", ""),
        messages=log_events(fields.get("messages", ())),
        # Set for a run in progress, too: it may have no other end than the reaper's.
        expires=_expiry(task["expires_after"], finish or start or eta or sent),
        lease=fields.get("lease"),
        provisional=fields.get("provisional", False),
        from_main_process=fields.get("from_main_process", False),
        save_run=task["save_on_success"] or state is not State.SUCCESS,
    )


def _sender(request: Request) -> object:
    sender = request.sender or ""
    if not request.of_beat:
        return sender
    # Celery names beat's process `gen123@host`, like any other.
    return f"{BEAT}{str(sender).rpartition('@')[2]}"


def _wait(sent: datetime | None, eta: datetime | None, start: datetime | None) -> float | None:
    """Return the seconds from the time at which a run was due to its start, or None."""
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
    except OverflowError:  # it lies after the year 9999
        return None


def _attempt(retries: object) -> int:
    """Return the number of the attempt, or 1 if `retries` is no number that the column can hold."""
    return retries + 1 if type(retries) is int and 0 < retries < 2**31 - 1 else 1


def _columns(*values: object) -> Iterable[str]:
    """Return the values as texts that their columns can hold."""
    try:
        # Checked as one text, because nearly all values are valid.
        together = "".join(values)  # type: ignore[arg-type]
    except TypeError:
        together = "\0"
    if clean_column(together, NAME_LIMIT) is together:
        return values  # type: ignore[return-value]
    return [clean_column(str(value), NAME_LIMIT) for value in values]


def _object(text: object) -> str:
    """Return the text if it is a JSON object that Postgres accepts, or else "{}"."""
    if not isinstance(text, str) or len(text) > CONTEXT_LIMIT or "\\u0000" in text:
        return "{}"
    try:
        return text if isinstance(orjson.loads(text), dict) else "{}"
    except ValueError:
        return "{}"
