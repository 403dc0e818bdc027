"""Records for tests, and the entries that they are read from."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import orjson

from systemtasks.runs.journal_line import Entry, Line, make_entry, task_fields
from systemtasks.runs.records import RunRecord, TaskInfo
from systemtasks.states import State, Status

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def record(celery_id: str = "id-1", *, start: datetime | None = NOON, **changes: Any) -> RunRecord:
    """Return a run that took 1.5 seconds. Without a start, it has only been sent."""
    finish = (start or NOON) + timedelta(seconds=1.5)
    message = uuid_of(f"{celery_id} {changes.get('attempt', 1)}")
    values: dict[str, Any] = {
        "id": message,
        "name": "shop.charge",
        "uid": "",
        "description": "Charge.",
        "celery_id": celery_id,
        "attempt": 1,
        "state": State.SUCCESS,
        "status": Status.SUCCESSFUL,
        "queue": "celery",
        "worker": "celery@host",
        "sent_timestamp": NOON - timedelta(seconds=2),
        "start_timestamp": start,
        "finish_timestamp": finish,
        "wait": 2.0,
        "duration": 1.5,
        "args": '[1, "zwei"]',
        "kwargs": "{}",
        "arguments_intact": True,
        "exception": "",
        "messages": '[{"event": "Grüße"}]',
        "expires": finish + timedelta(days=30),
    }
    values |= changes
    first = uuid_of(f"{message} first") if values["start_timestamp"] else None
    return RunRecord(**{"execution": first, **values})


def uuid_of(text: str) -> str:
    """The same UUID for the same text, as a message or an execution would have one of its own."""
    return str(uuid5(UUID(int=0), text))


def entry(celery_id: str = "id-1", **changes: Any) -> Entry:
    """Return the entry of `record` with these changes."""
    return entry_of(record(celery_id, **changes))


def entry_of(of: RunRecord) -> Entry:
    """Return the entry that this record is read from. Values that it does not have are invented."""
    end = of.finish_timestamp or of.eta_timestamp or of.sent_timestamp
    expires_after = of.expires - end if of.expires and end else None
    line: Line = {
        "task": task_fields(
            TaskInfo(of.name, of.description, expires_after, save_on_success=of.save_run)
        ),
        "request": {
            "celery_id": of.celery_id,
            "retries": of.attempt - 1,
            "eta": of.eta_timestamp,
            "queue": of.queue,
            "worker": of.worker,
            "sender": of.sender,
            "parent_id": of.parent_id,
            "root_id": of.root_id,
            "sent": of.sent_timestamp and of.sent_timestamp.timestamp(),
            "context": of.context,
            "run": of.id,
            "redelivered": int(of.redelivered),
            "parent_run": of.parent_run,
            "replaces": of.replaces,
        },
        "state": of.state,
        "status": of.status,
        "uid": of.uid,
        "first_uid": of.first_uid,
        "args": of.args,
        "kwargs": of.kwargs,
        "arguments_intact": of.arguments_intact,
        "duration": of.duration,
        "exception": of.exception,
        "messages": [_message(event) for event in orjson.loads(of.messages)],
        "execution": of.execution,
        "replaced_by": of.replaced_by,
        "lease": of.lease,
        "provisional": of.provisional,
        "from_main_process": of.from_main_process,
    }
    if of.sent_options != "{}":
        options = _options(of)
        if types := options.pop("types", None):
            line["argument_types"] = orjson.dumps(types).decode()
        line["request"]["options"] = options
    if of.start_timestamp:
        line["start"] = of.start_timestamp.timestamp()
    return make_entry(line)


def _options(of: RunRecord) -> dict[str, Any]:
    options = orjson.loads(of.sent_options or "{}")
    if "headers" in options:
        options["headers"] = orjson.dumps(options["headers"]).decode()
    if "header_types" in options:
        options["header_types"] = orjson.dumps(options["header_types"]).decode()
    if "expires" in options and of.sent_timestamp:
        options["expires"] = of.sent_timestamp + timedelta(seconds=options["expires"])
    return dict(options)


def _message(event: dict[str, Any]) -> tuple[object, ...]:
    logger, attributes = event.get("logger", "shop"), event.get("attributes", {})
    return NOON.timestamp(), 20, logger, event["event"], attributes
