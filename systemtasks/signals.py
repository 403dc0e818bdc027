"""Celery's signals, translated into what the recorder knows.

A receiver never raises and never waits: Celery would log what it raises, and nobody would read it.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.serialization import UnpickleableExceptionWrapper

from systemtasks import logs, received, recorder
from systemtasks.received import SENT_HEADER, task_info
from systemtasks.states import UNFINISHED, State
from systemtasks.writer import writer

logger = logging.getLogger(__name__)

STATES = {state.name: state for state in State if state not in UNFINISHED}
"""The states in which a run ends, by Celery's names for them."""

Receiver = Callable[..., None]


def connect() -> None:
    """Connect the receivers, once."""
    for signal, receiver in (
        (signals.before_task_publish, note_sending),
        (signals.after_setup_logger, capture_logs),
        (signals.after_setup_task_logger, capture_logs),
        (signals.celeryd_after_setup, capture_logs),
        (signals.worker_process_init, capture_logs),
        (signals.task_received, note_received),
        (signals.task_unknown, note_unknown),
        (signals.task_revoked, note_revoked),
        (signals.task_prerun, begin),
        (signals.task_failure, note_failure),
        (signals.task_retry, note_retry),
        (signals.task_postrun, finish),
        (signals.worker_ready, write_what_is_left),
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
def note_received(request: Any, **_: Any) -> None:  # noqa: ANN401
    received.remember(request)


@never_raising
def begin(task: Task[Any, Any], args: Any, kwargs: Any, **_: Any) -> None:  # noqa: ANN401
    recorder.start(received.attempt(task_info(task), task.request, args=args, kwargs=kwargs))


@never_raising
def note_failure(task_id: str, exception: BaseException, **_: Any) -> None:  # noqa: ANN401
    if run := recorder.running(task_id):
        run.fail(_original(exception))
    elif not isinstance(exception, Reject | Ignore) and (run := received.lost_attempt(task_id)):
        run.fail(exception)
        writer.submit(run.finish(State.FAILURE))


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
def note_revoked(
    sender: Task[Any, Any],
    request: Any,  # noqa: ANN401
    terminated: bool,
    signum: int | str | None,
    expired: bool,
    **_: Any,  # noqa: ANN401
) -> None:
    run = received.revoked_attempt(sender, request)
    run.revoke(received.reason(terminated, signum, expired), terminated=terminated)
    writer.submit(run.finish(State.REVOKED))


@never_raising
def note_unknown(id: str, name: str, exc: BaseException, message: Any, **_: Any) -> None:  # noqa: A002, ANN401
    run = received.unregistered_attempt(id, name, message)
    run.fail(exc)
    writer.submit(run.finish(State.FAILURE))


@never_raising
def write_what_is_left(**_: Any) -> None:  # noqa: ANN401
    writer.start()


@never_raising
def flush(**_: Any) -> None:  # noqa: ANN401
    writer.flush()


def _original(error: BaseException) -> BaseException:
    """The exception as raised, where Celery hands over a stand-in that pickle can take."""
    raised = sys.exc_info()[1]
    return raised if raised and isinstance(error, UnpickleableExceptionWrapper) else error


def _seconds_until(when: object) -> float | None:
    if isinstance(when, datetime):
        return max((when - datetime.now(when.tzinfo)).total_seconds(), 0.0)
    return float(when) if isinstance(when, int | float) else None
