"""What Celery's messages and requests say of a run, as an attempt for the recorder.

In the prefork pool some ends are known only to the main process, which never saw the task run:
a child that was killed, a hard time limit, a revoked or expired or unregistered task.
"""

import signal
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakValueDictionary

import orjson
from celery import Task, current_app
from celery.app.task import Context

from systemtasks import leases, recorder
from systemtasks.arguments import arguments
from systemtasks.conf import conf, sender_context
from systemtasks.options import default_info, info_of, task_info
from systemtasks.recorder import Run
from systemtasks.records import NAME_LIMIT, RunRecord, TaskInfo
from systemtasks.schedule import BEAT
from systemtasks.values import Cleaner, clean_column, utc

if TYPE_CHECKING:
    from celery.worker.request import Request  # which no process but a worker needs

SENT_HEADER = "systemtasks_sent"
"""The message header that says when a task was sent, in seconds since 1970, UTC."""
CONTEXT_HEADER = "systemtasks_context"
"""The message header with what SENDER_CONTEXT said, as JSON."""
BEAT_HEADER = "celery_beat_task"
"""The message header that says that beat sent it; Celery's own."""
CONTEXT_LIMIT = 4096  # bytes of JSON
UNNAMED = "(a message without a task's name)"

_requests: "WeakValueDictionary[tuple[str, int], Request]" = WeakValueDictionary()


def remember(request: "Request") -> None:
    """Keep hold of a request for as long as the worker does."""
    _requests[request.id, request.request_dict.get("retries") or 0] = request


def context_header() -> str | None:
    """What SENDER_CONTEXT says now, as JSON; None for nothing. Raises what it raises."""
    if (ask := sender_context(conf())) is None or (said := ask()) is None:
        return None
    text = orjson.dumps(Cleaner(conf().TEXT_LIMIT, conf().HIDDEN_KEYS).clean(said))
    if not text.startswith(b"{") or len(text) > CONTEXT_LIMIT:
        raise ValueError(f"SENDER_CONTEXT must return a dictionary of up to {CONTEXT_LIMIT} bytes")
    return text.decode()


def queued(
    name: str, headers: Mapping[str, Any], body: object, routing_key: str
) -> RunRecord | None:
    """The record of a message that has been sent; None where its task wants none."""
    info = info_of(current_app, name)
    if not info.recorded or not info.save_on_success:
        return None
    if isinstance(body, tuple):  # Celery's message protocol 2
        values, (args, kwargs, *_) = dict(headers), body
    else:
        values = {**body, **headers} if isinstance(body, dict) else dict(headers)
        args, kwargs = values.get("args"), values.get("kwargs")
    values["delivery_info"] = {"routing_key": routing_key}
    return recorder.queued(info, _sent(info, Context(values), args, kwargs))


def attempt(
    info: TaskInfo,
    context: Context,
    *,
    args: object,
    kwargs: object,
    started: datetime | None = None,
    lost: bool = False,
) -> Run:
    """The attempt that this context describes; it starts now, or started then."""
    return recorder.new(
        info,
        _sent(info, context, args, kwargs),
        worker=str(context.hostname or ""),
        lease=leases.lease().id,
        started=started,
        lost=lost,
    )


def lost_attempt(celery_id: str, retries: int | None) -> Run | None:
    """The attempt that a child of this process took and cannot record itself; known once."""
    if (request := _requests.pop((celery_id, retries or 0), None)) is None:
        return None
    context = Context(
        request.request_dict, delivery_info=request.delivery_info, hostname=request.hostname
    )
    started = moment(request.time_start)
    info = task_info(request.task)
    if not info.recorded:
        return None
    args, kwargs = request.args, request.kwargs
    return attempt(info, context, args=args, kwargs=kwargs, started=started, lost=True)


def broken_attempt(
    task: Task[Any, Any], celery_id: str, request: object, args: object, kwargs: object
) -> Run | None:
    """The attempt that Celery could not even begin."""
    info = task_info(task)
    if not info.recorded:
        return None
    values = dict(request) if isinstance(request, Mapping) else {}
    context = Context(values, id=celery_id)
    return attempt(info, context, args=args, kwargs=kwargs)


def revoked_attempt(task: Task[Any, Any], context: Context) -> Run | None:
    """The attempt that was revoked, which a child may have taken already."""
    info = task_info(task)
    if not info.recorded:
        return None
    request = _requests.get((str(context.id), context.retries or 0))
    started = moment(request.time_start) if request else None
    args, kwargs = context.args, context.kwargs
    return attempt(info, context, args=args, kwargs=kwargs, started=started, lost=True)


def unregistered_attempt(celery_id: str, name: str, message: Any) -> Run:  # noqa: ANN401 - kombu's
    """The attempt of a task that this worker does not know."""
    context = Context(message.headers or {}, id=celery_id, delivery_info=message.delivery_info)
    return attempt(default_info(name), context, args=None, kwargs=None)


def undecodable_attempt(message: Any) -> Run:  # noqa: ANN401 - kombu's
    """The attempt of which nothing but a message's envelope can be read."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    celery_id = headers.get("id") or (message.properties or {}).get("correlation_id") or uuid4()
    known = {key: headers.get(key) for key in ("retries", "eta", "origin", SENT_HEADER)}
    context = Context(known, id=str(celery_id), delivery_info=message.delivery_info)
    name = headers.get("task")
    info = default_info(name if isinstance(name, str) and name else UNNAMED)
    return attempt(info, context, args=None, kwargs=None)


def revocation(terminated: bool, number: int | str | None, expired: bool) -> str:
    """Why a task was revoked, as a sentence for its messages."""
    if expired:
        return "Expired before it started"
    if not terminated:
        return "Revoked before it started"
    name = signal.Signals(number).name if isinstance(number, int) else number
    return f"Terminated by {name or 'a signal'} while it ran"


def moment(value: object) -> datetime | None:
    """A time that a message carries: seconds since 1970, or ISO 8601; None for anything else."""
    if value is None:
        return None
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        return utc(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _sent(info: TaskInfo, context: Context, args: object, kwargs: object) -> RunRecord:
    # What is not in there is None, as it is in Context's class; attributes cost more.
    said = vars(context)
    own: Mapping[str, Any] = said
    if SENT_HEADER not in said and isinstance(headers := said.get("headers"), Mapping):
        own = headers  # in message protocol 1 they are beside the request's own fields
    sender = said.get("origin")
    if said.get(BEAT_HEADER) or own.get(BEAT_HEADER):
        # Celery calls beat's process `gen123@host`, like any other.
        sender = f"{BEAT}{str(sender or '').rpartition('@')[2]}"
    sent = info.blank.but()
    sent.args, sent.kwargs, sent.arguments_intact, sent.uid = arguments(info, args, kwargs)
    sent.first_uid = sent.uid
    sent.celery_id, sent.queue, sent.sender, sent.parent_id, sent.root_id = _columns(
        said.get("id") or "",
        (said.get("delivery_info") or {}).get("routing_key") or "",
        sender or "",
        said.get("parent_id") or "",
        said.get("root_id") or "",
    )
    if sent.parent_id == sent.celery_id:
        # Celery takes the first attempt for the parent of an orphan's second one.
        sent.parent_id = ""
    if retries := said.get("retries"):
        sent.attempt = _attempt(retries)
    sent.sent_timestamp = moment(own.get(SENT_HEADER))
    if (eta := said.get("eta")) is not None:
        sent.eta_timestamp = moment(eta)
    if (said_by_sender := own.get(CONTEXT_HEADER)) is not None:
        sent.context = _object(said_by_sender)
    return sent


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
