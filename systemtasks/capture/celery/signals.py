"""Receive Celery's signals and record the runs that they report.

A receiver never waits. Celery logs an exception of a receiver ("Signal handler … raised") and goes
on. docs/celery-signals.md lists when each signal is sent, and in which process.
"""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from celery import signals
from celery.exceptions import Ignore, NotRegistered, Reject, Retry, WorkerLostError
from celery.utils.serialization import UnpickleableExceptionWrapper

from systemtasks.capture import logs, threads
from systemtasks.capture.celery import received, schedule
from systemtasks.capture.celery.options import AnyTask, task_info
from systemtasks.capture.guard import counting, never_raising
from systemtasks.conf import conf
from systemtasks.ids import new_id
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import (
    CONTEXT_HEADER,
    EXECUTION,
    REPLACES_HEADER,
    RUN_HEADER,
    SENT_HEADER,
)
from systemtasks.runs.kinds import is_of, knows_its_offset, number
from systemtasks.runs.recorder import Run
from systemtasks.states import STATE_BY_CELERY_NAME, State
from systemtasks.storage import leases
from systemtasks.storage.writer import writer
from systemtasks.under_test import is_under_test

logger = logging.getLogger(__name__)

SUCCESS = State.SUCCESS.outcome.celery_name


def connect() -> None:
    """Connect the receivers, once."""
    for signal, receiver in (
        (signals.before_task_publish, stamp),
        (signals.after_task_publish, note_sent),
        (signals.celeryd_init, take_lease),
        (signals.after_setup_logger, capture_logs),
        (signals.after_setup_task_logger, capture_logs),
        (signals.celeryd_after_setup, capture_logs),
        (signals.worker_process_init, capture_logs),
        (signals.worker_ready, start_worker),
        (signals.beat_init, start_beat),
        (signals.task_received, note_received),
        (signals.task_rejected, note_rejected),
        (signals.task_unknown, note_unknown),
        (signals.task_revoked, note_revoked),
        (signals.task_prerun, begin),
        (signals.task_success, note_success),
        (signals.task_failure, note_failure),
        (signals.task_retry, note_retry),
        (signals.task_internal_error, note_internal_error),
        (signals.task_postrun, finish),
        (signals.worker_process_shutdown, flush),
        (signals.worker_shutdown, flush),
    ):
        signal.connect(
            counting(receiver), weak=False, dispatch_uid=f"systemtasks.{receiver.__name__}"
        )


# In the process that sends a task.


def stamp(headers: dict[str, Any], body: Any = None, **_: Any) -> None:  # noqa: ANN401 - a signal's
    headers[SENT_HEADER] = time.time()
    headers[RUN_HEADER] = new_id()
    # Celery has copied them from the message of which this one is a retry.
    headers.pop(EXECUTION, None)
    headers.pop(REPLACES_HEADER, None)
    if (run := recorder.current_run()) is not None:
        received.link(headers, body, run)
    if (context := received.context_header()) is not None:
        headers[CONTEXT_HEADER] = context


def note_sent(
    sender: str,
    headers: dict[str, Any] | None,
    body: Any,  # noqa: ANN401
    routing_key: str | None = None,
    **_: Any,  # noqa: ANN401
) -> None:
    if conf().RECORD_SENDING:
        entry = received.queued(sender, headers or {}, body, routing_key or "")
        if entry is not None:
            writer.submit(entry)


# In the process that runs it.


def begin(task: AnyTask, args: Any, kwargs: Any, **_: Any) -> None:  # noqa: ANN401
    info = task_info(task)
    if info.recorded:
        request = vars(task.request)
        run = received.attempt(info, request, args, kwargs)
        recorder.start(run, nested=bool(request.get("is_eager")))
        writer.watch(run)
        if run.request.get("redelivered"):
            run.log(logging.INFO, info.name, received.redelivery(run, task.app), {})
        if not logs.are_captured():
            capture_logs()


def note_success(sender: AnyTask, **_: Any) -> None:  # noqa: ANN401
    # The process may be killed before task_postrun. Celery has then stored a success already.
    run = recorder.current.get()
    if run is not None and run.task is task_info(sender):
        entry = run.succeed()
        if not run.task.save_on_success:
            # This end leaves no row that would show to the reader of the beginning that it ended.
            writer.forget_beginning(run)
        writer.submit(entry)


def note_failure(
    sender: AnyTask,
    task_id: str,
    exception: BaseException,
    einfo: Any = None,  # noqa: ANN401
    **_: Any,  # noqa: ANN401
) -> None:
    printed = getattr(einfo, "traceback", None)
    if run := recorder.running(task_id):
        run.fail(_original(exception), printed)
    elif is_of(exception, Reject) or is_of(exception, Ignore):
        return  # its end is recorded already
    elif run := recorder.ended(task_id) or received.take_attempt_of_child(task_id, sender.request):
        # Celery failed after the end of the task, or the child process that ran it is gone.
        _end(run, State.FAILURE, exception, printed)


def note_retry(
    request: Any,  # noqa: ANN401
    reason: BaseException | None = None,
    einfo: Any = None,  # noqa: ANN401
    **_: Any,  # noqa: ANN401
) -> None:
    cause, when = (reason.exc, reason.when) if is_of(reason, Retry) else (reason, None)
    printed = getattr(einfo, "traceback", None)
    if run := recorder.running(request.id):
        run.retry(cause, _seconds_until(when), printed)
    elif run := received.take_attempt_of_child(request.id, request):
        if reason is None:  # a cold shutdown, after which the task is not sent again
            _end(run, State.FAILURE, WorkerLostError("The worker was shut down while it ran"))
        else:
            run.retry(cause, _seconds_until(when), printed)
            _end(run, State.RETRY)


def note_internal_error(
    sender: AnyTask,
    task_id: str,
    args: object,
    kwargs: object,
    request: object,
    exception: BaseException,
    einfo: Any = None,  # noqa: ANN401
    **_: Any,  # noqa: ANN401
) -> None:
    if recorder.running(task_id) or recorder.ended(task_id):
        return  # task_postrun, or the task_failure that follows, records it
    if run := received.broken_attempt(sender, task_id, request, args, kwargs):
        _end(run, State.FAILURE, exception, getattr(einfo, "traceback", None))


def finish(task_id: str, state: str | None, **_: Any) -> None:  # noqa: ANN401
    if (run := recorder.end(task_id)) is None:
        return
    if state == SUCCESS and run.end_as_succeeded():
        writer.unwatch(run)
        return
    error = sys.exc_info()[1]
    if state in STATE_BY_CELERY_NAME:
        _end(run, STATE_BY_CELERY_NAME[state])
    elif is_of(error, Retry):  # raised to an eager caller, without a task_retry signal
        run.retry(error.exc, _seconds_until(error.when))
        _end(run, State.RETRY)
    else:
        # It ends by SystemExit or the like. If a signal was the cause, the main process knows that.
        _end(run, State.FAILURE, error, provisional=True)


# In the worker's main process.


def note_received(request: Any, **_: Any) -> None:  # noqa: ANN401
    received.remember(request)


def note_revoked(
    sender: AnyTask,
    request: Any,  # noqa: ANN401
    terminated: bool,
    signum: int | str | None,
    expired: bool,
    **_: Any,  # noqa: ANN401
) -> None:
    if run := received.revoked_attempt(sender, request):
        run.revoke(received.revocation(terminated, signum, expired), terminated=terminated)
        _end(run, State.REVOKED)


def note_unknown(id: str, name: str, message: Any, **_: Any) -> None:  # noqa: A002, ANN401
    _end(received.unregistered_attempt(id, name, message), State.FAILURE, NotRegistered(name))


def note_rejected(message: Any, exc: BaseException | None, **_: Any) -> None:  # noqa: ANN401
    error = exc or ValueError("This is not a message of Celery's")
    _end(received.undecodable_attempt(message), State.REJECTED, error)


def take_lease(**_: Any) -> None:  # noqa: ANN401
    leases.take(worker=True)


def start_worker(sender: Any, **_: Any) -> None:  # noqa: ANN401
    if is_under_test():
        logger.warning("This worker records nothing, because tests run in its process")
    writer.start()
    _note_undecodable(sender)
    writer.leave_out(schedule.unrecorded_tasks(sender.app))
    writer.announce(schedule.known_tasks(sender.app))


def start_beat(sender: Any, **_: Any) -> None:  # noqa: ANN401
    leases.current_lease()
    writer.start()
    writer.announce(schedule.known_tasks(sender.app, sender.scheduler.schedule))


# In all of them.


def capture_logs(**_: Any) -> None:  # noqa: ANN401
    logs.install()
    if conf().FOLLOW_THREADS:
        threads.follow()


def flush(**_: Any) -> None:  # noqa: ANN401
    writer.flush()


def _end(
    run: Run,
    state: State,
    error: BaseException | None = None,
    printed: object = None,
    *,
    provisional: bool = False,
) -> None:
    if error is not None:
        run.fail(error, printed)
    try:
        writer.submit(run.finish(state, provisional=provisional))
    finally:
        writer.unwatch(run)


def _note_undecodable(consumer: Any) -> None:  # noqa: ANN401
    """Record messages that cannot be decoded.

    Celery sends no signal for those. It only calls this method of its consumer.
    """
    if "on_decode_error" in vars(consumer):
        return  # it has reconnected to its broker, and is replaced already
    report: Callable[..., None] = consumer.on_decode_error

    def note(message: Any, exc: BaseException) -> None:  # noqa: ANN401
        never_raising(note_rejected)(message=message, exc=exc)
        report(message, exc)

    consumer.on_decode_error = note
    if getattr(consumer, "task_consumer", None) is not None:
        consumer.task_consumer.on_decode_error = note


def _original(error: BaseException) -> BaseException:
    """Return the exception as raised, if Celery has replaced it by one that can be pickled."""
    raised = sys.exc_info()[1]
    if raised is not None and is_of(error, UnpickleableExceptionWrapper):
        return raised
    return error


def _seconds_until(when: object) -> float | None:
    """Return the seconds until a retry, or None if only a project's own code could compute them."""
    with suppress(TypeError, ValueError, OverflowError):
        if type(when) is datetime and knows_its_offset(when.tzinfo):
            return max(when.timestamp() - time.time(), 0.0)
        return float(number(when))
    return None
