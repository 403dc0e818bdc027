"""Tell what the messages of an entry of beat's schedule carry besides their arguments."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from celery import Celery
from celery.app.task import extract_exec_options  # type: ignore[attr-defined]
from kombu.serialization import registry  # type: ignore[attr-defined]

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs import sent_options
from systemtasks.runs.exceptions import log_handled
from systemtasks.runs.kinds import built_in_number, is_of

logger = own_logger(__name__)

KEPT = ("priority", "time_limit", "soft_time_limit")
HOW_TO_SEND = frozenset(
    (
        "add_to_parent",
        "argsrepr",
        "compression",
        "countdown",
        "delivery_mode",
        "eta",
        "ignore_result",
        "immediate",
        "kwargsrepr",
        "mandatory",
        "periodic_task_name",
        "retry",
        "retry_policy",
    )
)
"""Options of which run again makes no use: it sends at once, and as this process sends."""


def column(app: Celery, entry: Any, types: str | None) -> str:  # noqa: ANN401 - an entry of beat
    """Return the JSON of the column for an entry. `types` is the JSON of its arguments' types.

    The destination is that to which the app of beat routes the task: another process may not know.
    """
    task = app.tasks.get(entry.task)
    own = {} if task is None else extract_exec_options(task)
    given = {name: value for name, value in own.items() if value is not None}
    given |= {name: value for name, value in (entry.options or {}).items() if value is not None}
    missing: list[str] = []
    fields: dict[str, Any] = {name: given.pop(name) for name in KEPT if name in given}
    fields |= _destination(app, entry, given, task, missing)
    serializer = given.pop("serializer", app.conf.task_serializer)
    if serializer != "json":
        fields["content_type"] = registry.name_to_type.get(serializer, serializer)
    headers = given.pop("headers", None)
    fields |= sent_options.fields_of({"headers": headers}, None)
    now = datetime.now(UTC)
    if (expires := given.pop("expires", None)) is not None:
        fields["expires"] = _expiry(expires, now)
    missing += [f"the option {name!r}" for name in given.keys() - HOW_TO_SEND]
    text = sent_options.column(fields, now, None, masks=conf().MASK_TEXTS, types=types)
    options = orjson.loads(text)
    if missing:
        options["missing"] = [*options.get("missing", ()), *sorted(missing)]
    return orjson.dumps(options).decode()


def _destination(
    app: Celery,
    entry: Any,  # noqa: ANN401
    given: dict[str, Any],
    task: Any,  # noqa: ANN401 - Celery's Task, or None
    missing: list[str],
) -> dict[str, Any]:
    """Return the fields of where the entry's messages go, and take them out of `given`."""
    names = ("queue", "exchange", "routing_key")
    where: dict[str, Any] = {name: given.pop(name) for name in names if name in given}
    try:
        args, kwargs = entry.args or (), entry.kwargs or {}
        routed: Mapping[str, Any] = app.amqp.router.route(where, entry.task, args, kwargs, task)
    except Exception:  # noqa: BLE001 - the project's own routers
        log_handled(logger, "Where the task %s of the schedule is sent is not known", entry.task)
        missing.append("the queue")
        return {}
    queue, exchange = routed.get("queue"), routed.get("exchange")
    if exchange:  # it counts, whatever the queue is
        key = routed.get("routing_key") or ""
        return {"exchange": getattr(exchange, "name", exchange), "routing_key": key}
    return {"queue": getattr(queue, "name", queue)} if queue else {}


def _expiry(expires: object, now: datetime) -> object:
    """Return the time at which a message sent now would expire, or a text if that varies."""
    if is_of(expires, datetime) or (seconds := built_in_number(expires)) is None:
        return "at a time of its own"
    return (now + timedelta(seconds=seconds)).isoformat()
