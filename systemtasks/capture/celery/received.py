"""Create runs for the recorder from Celery's messages and requests.

In the prefork pool, some ends are known only to the main process, which did not run the task: a
child that was killed, a hard time limit, a revoked or expired or unregistered task.
"""

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import KeyedRef

import orjson
from celery import Celery
from celery.app.task import Context

from systemtasks.capture.celery import queues
from systemtasks.capture.celery.apps import app_of
from systemtasks.capture.celery.options import AnyTask, default_info, info_of, task_info
from systemtasks.conf import conf, sender_context
from systemtasks.ids import new_id
from systemtasks.runs import recorder
from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.journal_line import (
    CONTEXT_LIMIT,
    EXECUTION,
    PARENT_HEADER,
    REPLACES_HEADER,
    RUN_HEADER,
    SENT_HEADER,
    Entry,
)
from systemtasks.runs.kinds import is_of
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import NAME_LIMIT, TaskInfo
from systemtasks.runs.sent_options import CONTENT_TYPE, QUEUE
from systemtasks.runs.values import Cleaner, describe
from systemtasks.storage import leases

if TYPE_CHECKING:
    from celery.worker.request import Request  # imported only by workers

KNOWN_HEADERS = ("retries", "eta", "origin", SENT_HEADER, RUN_HEADER, PARENT_HEADER)
VISIBILITY_TIMEOUTS = {"redis": 3600, "sqs": 1800}
"""Kombu's defaults, in seconds, by the kind of broker."""

_requests: "dict[str, KeyedRef[str, Request]]" = {}
"""The requests that the worker holds, by the ids of their executions."""


def remember(request: "Request", consumer: Any) -> None:  # noqa: ANN401 - Celery's Consumer
    """Give this delivery of a message an id, and keep hold of it for as long as the worker does.

    The request's dictionary takes the id to the process or thread that runs the task. Add to it
    what else is not among Celery's own: the queue from which `consumer` took the message, and the
    type of the message's body.
    """
    values = request.request_dict
    execution = values[EXECUTION] = new_id()
    _requests[execution] = KeyedRef(request, _let_go, execution)
    # A request may have them from the message: a retry has the headers of the attempt before.
    values.pop(QUEUE, None)
    values.pop(CONTENT_TYPE, None)
    values.update(_queue(consumer, request.message))
    kind = request.message.content_type
    if kind != "application/json":
        values[CONTENT_TYPE] = kind


def _let_go(reference: "KeyedRef[str, Request]") -> None:
    # The worker has nothing more to do with this execution. If its row still says then that it
    # runs, no process is left that will ever end it, and Celery has sent no signal.
    if _requests.pop(reference.key, None) is not None:
        leases.note_over(reference.key)


def _held(execution: object) -> "Request | None":
    # Of a message that was never received, it is as the sender wrote it.
    reference = _requests.get(execution) if type(execution) is str else None
    return None if reference is None else reference()


def link(headers: dict[str, Any], body: object, run: Run) -> None:
    """Name in a message's headers the run that sends it, and the one that it replaces.

    A retry, like a task that replaces another, has the same Celery id as the run that sends it. It
    has the parent of that run, and not the run itself. So no run descends from itself.
    """
    # In message protocol 1, Celery's fields are in the body.
    get = body.get if is_of(body, dict) else headers.get
    parent: str | None = run.id
    if run.has_celery_id(get("id")):
        if _whole(get("replaced_task_nesting")) > _whole(run.nesting):
            headers[REPLACES_HEADER], run.replaced_by = run.id, headers[RUN_HEADER]
            parent = run.request.get("parent_run")
        elif _whole(get("retries")) > _whole(run.request.get("retries")):
            parent = run.request.get("parent_run")
    if parent is not None:
        headers[PARENT_HEADER] = parent
    else:
        headers.pop(PARENT_HEADER, None)


def _whole(value: object) -> int:
    return value if type(value) is int else 0


_added: ContextVar[Mapping[str, str] | None] = ContextVar("systemtasks_added", default=None)


@contextmanager
def added_context(values: Mapping[str, str]) -> Iterator[None]:
    """Add values to the context of what is sent within the `with` statement."""
    token = _added.set(values)
    try:
        yield
    finally:
        _added.reset(token)


def context_header() -> str | None:
    """Return the result of SENDER_CONTEXT as JSON, with what is added, or None if there is none.

    Raise ValueError if it is not a dictionary or too large. Let SENDER_CONTEXT's exceptions
    propagate.
    """
    get_context, added = sender_context(conf()), _added.get()
    context = None if get_context is None else get_context()
    if added and (context is None or isinstance(context, dict)):
        context = {**(context or {}), **added}
    if context is None:
        return None
    text = orjson.dumps(Cleaner(conf().TEXT_LIMIT).clean(context))
    if not text.startswith(b"{") or len(text) > CONTEXT_LIMIT:
        raise ValueError(f"SENDER_CONTEXT must return a dictionary of up to {CONTEXT_LIMIT} bytes")
    return text.decode()


def queued(
    name: str, headers: Mapping[str, Any], body: object, delivery: Mapping[str, Any]
) -> Entry | None:
    """Return the entry of a message that has been sent, or None if its task records none.

    `delivery` has its exchange, its routing key and its priority.
    """
    app = app_of(name)
    info = info_of(app, name)
    if not info.recorded or not info.save_on_success or info.polls:
        return None
    if type(body) is tuple:  # Celery's message protocol 2
        values, (args, kwargs, *_) = dict(headers), body
    else:
        values = {**body, **headers} if is_of(body, dict) else dict(headers)
        args, kwargs = values.get("args"), values.get("kwargs")
    values["delivery_info"] = delivery
    if delivery["exchange"]:
        values[QUEUE] = queues.sent_to(app, delivery["exchange"], delivery["routing_key"])
    return recorder.queued(info, values, clean_arguments(info, args, kwargs, find_task))


def find_task(name: str) -> TaskInfo:
    """Return the properties of the task of a signature."""
    return info_of(app_of(name), name)


def attempt(info: TaskInfo, request: Mapping[str, Any], args: object, kwargs: object) -> Run:
    """Return the attempt that this request describes. It starts now."""
    arguments = clean_arguments(info, args, kwargs, find_task)
    return Run(info, request, arguments, leases.current_lease().id)


def redelivery(run: Run, app: Celery) -> str:
    """Return why the broker has delivered this run's message again, as a text for its messages."""
    sent, limit = run.request.get("sent"), _visibility_timeout(app)
    if type(sent) is float and limit is not None and run.start - sent >= limit:
        # The message of a lost worker comes again after this time, too.
        return (
            "The broker has delivered this message before: its worker was lost, has put it back "
            f"into the queue, or has not acknowledged it within the visibility timeout of {limit:g}"
            " s, which must be longer than a task waits for its ETA, and runs"
        )
    return (
        "The broker has delivered this message before: its worker was lost, or has put it back "
        "into the queue"
    )


def _visibility_timeout(app: Celery) -> float | None:
    """Return the seconds after which the broker delivers again, or None if it has no such time."""
    default = VISIBILITY_TIMEOUTS.get(app.connection_for_read().transport.driver_type)
    limit = app.conf.broker_transport_options.get("visibility_timeout", default)
    return limit if default is not None and type(limit) in (int, float) else None


def started_attempt(task: AnyTask, task_id: object, args: object, kwargs: object) -> Run | None:
    """Return the attempt that starts now, or None if its task is not recorded.

    An executor's signals may have another id (`task_id`) than the task's request, or the request
    may have none. celery-batches does so: it runs a task once for many messages.
    """
    info = task_info(task)
    if not info.recorded:
        return None
    request = vars(task.request)
    if task_id is request.get("id"):
        return attempt(info, request, args, kwargs)
    messages = _messages_of_batch(args)
    if request.get("id") is None:
        known = _values_of(messages[0]) if messages else {}
        where: dict[str, Any] = {
            name: known[name] for name in ("delivery_info", "hostname") if name in known
        }
        request = {**where, **request, "id": task_id}
    run = attempt(info, request, args, kwargs)
    run.signal_id = task_id
    run.members = [attempt(info, _values_of(one), one.args, one.kwargs) for one in messages]
    return run


def _values_of(message: Any) -> dict[str, Any]:  # noqa: ANN401 - a SimpleRequest
    known = ("id", "delivery_info", "hostname")
    given = vars(message)
    return {**(given.get("request_dict") or {}), **{name: given.get(name) for name in known}}


def _messages_of_batch(args: object) -> Sequence[Any]:
    """Return celery-batches's requests for a batch of messages, or nothing for another task."""
    batches = sys.modules.get("celery_batches")
    given = args[0] if type(args) in (tuple, list) and len(args) == 1 else ()  # type: ignore[arg-type,index]
    kind = getattr(batches, "SimpleRequest", None)
    if kind is None or type(given) not in (tuple, list):
        return ()
    return given if all(type(one) is kind for one in given) else ()


def take_attempt_of_child(celery_id: str, context: Context) -> Run | None:
    """Return the attempt of a child process that can no longer end it.

    `context` is the request on the task's stack, where Celery has put one.

    Return None if the message is not known, if this has already returned the attempt, or if its
    task is not recorded.
    """
    execution = vars(context).get(EXECUTION) if context.id == celery_id else None
    execution = execution or _execution_that_failed(celery_id)
    if (request := _held(execution)) is None:
        return None
    del _requests[execution]
    info = task_info(request.task)
    if not info.recorded:
        return None
    values = {
        **request.request_dict,
        "delivery_info": request.delivery_info,
        "hostname": request.hostname,
    }
    run = attempt(info, values, request.args, request.kwargs)
    run.belongs_to_child(request.time_start)
    return run


def _execution_that_failed(celery_id: str) -> str:
    """Return the execution under this Celery id that a child had and Celery takes for ended.

    Celery 5.6, and any version at a hard time limit, says only the Celery id of a failed task. The
    worker may hold several messages with it, some of which wait and some of which run.
    """
    from celery.worker import state  # imported only by workers

    for execution in list(_requests):
        request = _held(execution)
        if request is None or request.id != celery_id or request in state.active_requests:
            continue
        if request.time_start:
            return execution
    return ""


def broken_attempt(
    task: AnyTask, celery_id: str, request: object, args: object, kwargs: object
) -> Run | None:
    """Return the attempt that Celery failed to start, or None if its task is not recorded."""
    info = task_info(task)
    if not info.recorded:
        return None
    values = dict(request) if is_of(request, dict) else {}
    return attempt(info, {**values, "id": celery_id}, args, kwargs)


def revoked_attempt(task: AnyTask, context: Context) -> Run | None:
    """Return the attempt that was revoked, before or while a child process ran it.

    Return None if its task is not recorded.
    """
    info = task_info(task)
    if not info.recorded:
        return None
    request = _held(vars(context).get(EXECUTION, ""))
    run = attempt(info, vars(context), context.args, context.kwargs)
    run.belongs_to_child(request.time_start if request else None)
    return run


def unregistered_attempt(consumer: Any, celery_id: str, name: str, message: Any) -> Run:  # noqa: ANN401
    """Return the attempt of a task that this worker does not know."""
    values = {
        **(message.headers or {}),
        "id": celery_id,
        "delivery_info": message.delivery_info,
        **_queue(consumer, message),
    }
    return attempt(default_info(describe(name, NAME_LIMIT)), values, None, None)


def _queue(consumer: Any, message: Any) -> dict[str, str]:  # noqa: ANN401 - Celery's and kombu's
    if not (message.delivery_info or {}).get("exchange"):
        return {}  # the routing key is the queue's name
    return {QUEUE: queues.consumed(consumer, message)}


def undecodable_attempt(consumer: Any, message: Any) -> Run:  # noqa: ANN401 - kombu's
    """Return the attempt of a message whose body cannot be decoded."""
    headers = message.headers if is_of(message.headers, dict) else {}
    celery_id = headers.get("id") or (message.properties or {}).get("correlation_id") or uuid4()
    known = {key: headers.get(key) for key in KNOWN_HEADERS}
    values = {
        **known,
        "id": describe(celery_id, NAME_LIMIT),
        "delivery_info": message.delivery_info,
        **_queue(consumer, message),
    }
    name = headers.get("task")
    info = default_info(name if type(name) is str else "")
    return attempt(info, values, None, None)


def revocation(terminated: bool, number: int | str | None, expired: bool) -> str:
    """Return the reason why a task was revoked, as a text for its messages."""
    if expired:
        return "Expired before it started"
    if not terminated:
        return "Revoked before it started"
    name = signal.Signals(number).name if isinstance(number, int) else number
    return f"Terminated by {name or 'a signal'} while it ran"
