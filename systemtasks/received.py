"""What a worker's process knows of a message that it received, as an attempt for the recorder.

In the prefork pool some ends are known only to the main process, which never saw the task run:
a child that was killed, a hard time limit, a revoked or expired or unregistered task.
"""

import inspect
import logging
import signal
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from celery import Task
from celery.app.task import Context

from systemtasks import recorder
from systemtasks.conf import conf, is_expiry
from systemtasks.recorder import NAME_LIMIT, Run, TaskInfo
from systemtasks.values import clean_column, clean_text, utc

if TYPE_CHECKING:
    from celery.worker.request import Request  # which no process but a worker needs

logger = logging.getLogger(__name__)

SENT_HEADER = "systemtasks_sent"
"""The message header that says when a task was sent, in seconds since 1970, UTC."""

_requests: "WeakValueDictionary[str, Request]" = WeakValueDictionary()


def remember(request: "Request") -> None:
    """Keep hold of a request for as long as the worker does."""
    _requests[request.id] = request


def attempt(
    info: TaskInfo,
    context: Context,
    *,
    args: object,
    kwargs: object,
    started: datetime | None = None,
) -> Run:
    """The attempt that this context describes; it starts now, or started then."""
    return recorder.new(
        info,
        celery_id=str(context.id),
        attempt=(context.retries or 0) + 1,
        queue=str((context.delivery_info or {}).get("routing_key") or ""),
        worker=str(context.hostname or ""),
        sent=moment(getattr(context, SENT_HEADER, None)),
        due=moment(context.eta),
        args=args,
        kwargs=kwargs,
        started=started,
    )


def lost_attempt(celery_id: str) -> Run | None:
    """The attempt that a child of this process took and cannot record itself any more."""
    if (request := _requests.get(celery_id)) is None:
        return None
    context = Context(
        request.request_dict, delivery_info=request.delivery_info, hostname=request.hostname
    )
    started = moment(request.time_start)
    info = task_info(request.task)
    return attempt(info, context, args=request.args, kwargs=request.kwargs, started=started)


def revoked_attempt(task: Task[Any, Any], context: Context) -> Run:
    """The attempt that was revoked, which a child may have taken already."""
    request = _requests.get(str(context.id))
    started = moment(request.time_start) if request else None
    info = task_info(task)
    return attempt(info, context, args=context.args, kwargs=context.kwargs, started=started)


def unregistered_attempt(celery_id: str, name: str, message: Any) -> Run:  # noqa: ANN401 - kombu's
    """The attempt of a task that this worker does not know."""
    info = TaskInfo(clean_column(name, NAME_LIMIT), "", conf().EXPIRES_AFTER)
    context = Context(message.headers or {}, id=celery_id, delivery_info=message.delivery_info)
    return attempt(info, context, args=None, kwargs=None)


def reason(terminated: bool, number: int | str | None, expired: bool) -> str:
    """Why a task was revoked, as a sentence for its messages."""
    if expired:
        return "Expired before it started"
    if not terminated:
        return "Revoked before it started"
    name = signal.Signals(number).name if isinstance(number, int) else number
    return f"Terminated by {name or 'a signal'} while it ran"


@cache
def task_info(task: Task[Any, Any]) -> TaskInfo:
    """What is the same in every run of this task."""
    docstring = inspect.cleandoc(task.__doc__ or "").strip()
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return TaskInfo(
        name=clean_column(task.name, NAME_LIMIT),
        description=clean_text(paragraph, conf().TEXT_LIMIT),
        expires_after=_expires_after(task),
    )


def _expires_after(task: Task[Any, Any]) -> timedelta | None:
    default = conf().EXPIRES_AFTER
    own: timedelta | None = getattr(task, "systemtasks_expires_after", default)
    if is_expiry(own):
        return own
    logger.warning(
        "%s has systemtasks_expires_after=%r, which is neither None nor a timedelta of up to "
        "36500 days; its rows expire after %s",
        *(task.name, own, default),
    )
    return default


def moment(value: object) -> datetime | None:
    """A time that a message carries: seconds since 1970, or ISO 8601."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return utc(value) if isinstance(value, str) else None
