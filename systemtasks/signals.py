"""Celery's signals, translated into what the recorder knows.

A receiver never raises and never waits: Celery would log what it raises, and nobody would read it.
"""

import inspect
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, wraps
from typing import Any

from celery import Task, signals
from celery.exceptions import Retry
from celery.utils.serialization import UnpickleableExceptionWrapper

from systemtasks import logs, recorder
from systemtasks.conf import conf
from systemtasks.recorder import NAME_LIMIT, TaskInfo
from systemtasks.states import State
from systemtasks.values import clean_column, clean_text
from systemtasks.writer import writer

logger = logging.getLogger(__name__)

SENT_HEADER = "systemtasks_sent"
"""The message header that says when a task was sent, in seconds since 1970, UTC."""

STATES = {
    "SUCCESS": State.SUCCESS,
    "FAILURE": State.FAILURE,
    "RETRY": State.RETRY,
    "IGNORED": State.IGNORED,
    "REJECTED": State.REJECTED,
    "REVOKED": State.REVOKED,
}

Receiver = Callable[..., None]


def connect() -> None:
    """Connect the receivers, once."""
    for signal, receiver in (
        (signals.before_task_publish, note_sending),
        (signals.after_setup_logger, capture_logs),
        (signals.after_setup_task_logger, capture_logs),
        (signals.celeryd_after_setup, capture_logs),
        (signals.worker_process_init, capture_logs),
        (signals.task_prerun, begin),
        (signals.task_failure, note_failure),
        (signals.task_retry, note_retry),
        (signals.task_postrun, finish),
        (signals.worker_process_shutdown, flush),
        (signals.worker_shutdown, flush),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"systemtasks.{receiver.__name__}")


def never_raising(receiver: Receiver) -> Receiver:
    """Log what the receiver raises; the task goes on."""

    @wraps(receiver)
    def call(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - a signal's own arguments
        try:
            receiver(*args, **kwargs)
        except Exception:
            logger.exception("Recording failed in %s", receiver.__name__)

    return call


@never_raising
def note_sending(headers: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
    headers[SENT_HEADER] = time.time()


@never_raising
def capture_logs(**_: Any) -> None:  # noqa: ANN401
    logs.install()


@never_raising
def begin(task_id: str, task: Task[Any, Any], args: Any, kwargs: Any, **_: Any) -> None:  # noqa: ANN401
    request = task.request
    recorder.start(
        task_info(task),
        celery_id=task_id,
        attempt=(request.retries or 0) + 1,
        queue=str((request.delivery_info or {}).get("routing_key") or ""),
        worker=str(request.hostname or ""),
        sent=_moment(getattr(request, SENT_HEADER, None)),
        due=_moment(request.eta),
        args=args,
        kwargs=kwargs,
    )


@never_raising
def note_failure(task_id: str, exception: BaseException, **_: Any) -> None:  # noqa: ANN401
    if run := recorder.running(task_id):
        run.fail(_original(exception))


@never_raising
def note_retry(request: Any, reason: BaseException, **_: Any) -> None:  # noqa: ANN401
    if run := recorder.running(request.id):
        cause, when = (reason.exc, reason.when) if isinstance(reason, Retry) else (reason, None)
        run.retry(cause, _seconds_until(when))


@never_raising
def finish(task_id: str, state: str | None, **_: Any) -> None:  # noqa: ANN401
    if (run := recorder.end(task_id)) and state in STATES:
        writer.submit(run.finish(STATES[state]))


@never_raising
def flush(**_: Any) -> None:  # noqa: ANN401
    writer.flush()


@cache
def task_info(task: Task[Any, Any]) -> TaskInfo:
    """What is the same in every run of this task."""
    docstring = inspect.cleandoc(task.__doc__ or "").strip()
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return TaskInfo(
        name=clean_column(task.name, NAME_LIMIT),
        description=clean_text(paragraph, conf().TEXT_LIMIT),
        expires_after=getattr(task, "systemtasks_expires_after", conf().EXPIRES_AFTER),
    )


def _original(error: BaseException) -> BaseException:
    """The exception as raised, where Celery hands over a stand-in that pickle can take."""
    raised = sys.exc_info()[1]
    return raised if raised and isinstance(error, UnpickleableExceptionWrapper) else error


def _moment(value: object) -> datetime | None:
    """A time that a message carries: seconds since 1970, or ISO 8601."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _seconds_until(when: object) -> float | None:
    if isinstance(when, datetime):
        return max((when - datetime.now(when.tzinfo)).total_seconds(), 0.0)
    return float(when) if isinstance(when, int | float) else None
