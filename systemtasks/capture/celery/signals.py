"""Receive Celery's signals and record the runs that they report.

A receiver never waits. Celery logs an exception of a receiver ("Signal handler … raised") and goes
on. docs/celery-signals.md lists when each signal is sent, and in which process.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from celery import signals
from celery.exceptions import Ignore, NotRegistered, Reject, Retry, WorkerLostError
from celery.utils.serialization import UnpickleableExceptionWrapper

from systemtasks.capture import logs, loguru_sink, threads
from systemtasks.capture.celery import beat, received, registered_types, schedule, stored_states
from systemtasks.capture.celery.options import AnyTask, task_info
from systemtasks.capture.guard import counting, never_raising
from systemtasks.conf import conf
from systemtasks.ids import new_id
from systemtasks.own_logger import own_logger
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
from systemtasks.runs.sent_options import CONTENT_TYPE, QUEUE
from systemtasks.runs.typed_values import registry
from systemtasks.states import STATE_BY_CELERY_NAME, State
from systemtasks.storage import leases
from systemtasks.storage.writer import writer
from systemtasks.under_test import is_under_test

logger = own_logger(__name__)

SUCCESS = State.SUCCESS.outcome.celery_name
STORED_COUNTS = {State.IGNORED.outcome.celery_name, State.REJECTED.outcome.celery_name}
"""The states in which Celery stores nothing itself, so that the task's stored state remains."""


def connect() -> None:
    """Connect the receivers, once."""
    registry.encode = registered_types.encode
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


class _Sending(threading.local):
    """The message that this thread is sending: only the first of two signals has its properties."""

    headers: dict[str, Any] | None = None
    priority: object = None


_sending = _Sending()


def stamp(
    headers: dict[str, Any],
    body: Any = None,  # noqa: ANN401
    properties: Any = None,  # noqa: ANN401
    **_: Any,  # noqa: ANN401
) -> None:
    headers[SENT_HEADER] = time.time()
    headers[RUN_HEADER] = new_id()
    # Celery has copied them from the message of the attempt before, if this is a retry.
    for name in (EXECUTION, REPLACES_HEADER, QUEUE, CONTENT_TYPE):
        headers.pop(name, None)
    _sending.headers = headers
    _sending.priority = properties.get("priority") if is_of(properties, dict) else None
    if (run := recorder.current_run()) is not None:
        received.link(headers, body, run)
    if (context := received.context_header()) is not None:
        headers[CONTEXT_HEADER] = context


def note_sent(
    sender: str,
    headers: dict[str, Any] | None,
    body: Any,  # noqa: ANN401
    exchange: Any = None,  # noqa: ANN401 - its name, or kombu's Exchange
    routing_key: str | None = None,
    **_: Any,  # noqa: ANN401
) -> None:
    is_same, priority = headers is _sending.headers, _sending.priority
    _sending.headers = _sending.priority = None
    if conf().RECORD_SENDING:
        delivery = {
            "exchange": getattr(exchange, "name", exchange) or "",
            "routing_key": routing_key or "",
            "priority": priority if is_same else None,
        }
        entry = received.queued(sender, headers or {}, body, delivery)
        if entry is not None:
            writer.submit(entry)


# In the process that runs it.


def begin(task: AnyTask, task_id: Any, args: Any, kwargs: Any, **_: Any) -> None:  # noqa: ANN401
    if run := received.started_attempt(task, task_id, args, kwargs):
        recorder.start(run, nested=bool(vars(task.request).get("is_eager")))
        if not run.task.polls:
            writer.watch(run)
        if run.request.get("redelivered"):
            run.log(logging.INFO, run.task.name, received.redelivery(run, task.app), {})
        if not logs.are_captured():
            capture_logs()


def note_success(sender: AnyTask, **_: Any) -> None:  # noqa: ANN401
    # The process may be killed before task_postrun. Celery has then stored a success already.
    run = recorder.current.get()
    if run is not None and run.task is task_info(sender):
        entry = run.succeed()
        if not run.task.save_on_success:
            # This end leaves no row, so the reader of the beginning could not see that it ended.
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
    _finish(run, state)
    for member in run.members:
        end = STATE_BY_CELERY_NAME.get(state or "", State.FAILURE)
        writer.submit(member.end_with_batch(run, end))


def _finish(run: Run, state: str | None) -> None:
    if state == SUCCESS and run.end_as_succeeded():
        writer.unwatch(run)
        return
    error = sys.exc_info()[1]
    if state in STORED_COUNTS and (own := _stored_state(run)):
        _end(run, own)
    elif state in STATE_BY_CELERY_NAME:
        _end(run, STATE_BY_CELERY_NAME[state])
    elif is_of(error, Retry):  # raised to an eager caller, without a task_retry signal
        run.retry(error.exc, _seconds_until(error.when))
        _end(run, State.RETRY)
    else:
        # It ends by SystemExit or the like. If a signal was the cause, the main process knows that.
        _end(run, State.FAILURE, error, provisional=True)


# In the worker's main process.


def note_received(sender: Any, request: Any, **_: Any) -> None:  # noqa: ANN401
    received.remember(request, sender)


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


def note_unknown(sender: Any, id: str, name: str, message: Any, **_: Any) -> None:  # noqa: A002, ANN401
    run = received.unregistered_attempt(sender, id, name, message)
    _end(run, State.FAILURE, NotRegistered(name))


def note_rejected(sender: Any, message: Any, exc: BaseException | None, **_: Any) -> None:  # noqa: ANN401
    error = exc or ValueError("This is not a message of Celery's")
    _end(received.undecodable_attempt(sender, message), State.REJECTED, error)


def take_lease(**_: Any) -> None:  # noqa: ANN401
    leases.take(worker=True)


def start_worker(sender: Any, **_: Any) -> None:  # noqa: ANN401
    if is_under_test():
        logger.warning("This worker records nothing, because tests run in its process")
    if loguru_sink.is_missing():
        logger.warning(
            "Messages of Loguru are not recorded: add the sink systemtasks.reporting.loguru_sink"
        )
    writer.start()
    _note_undecodable(sender)
    writer.leave_out(schedule.unrecorded_tasks(sender.app))
    writer.announce(schedule.known_tasks(sender.app))


def start_beat(sender: Any, **_: Any) -> None:  # noqa: ANN401
    leases.current_lease()
    writer.start()
    beat.ScheduleFollower(sender.app, sender.scheduler).follow()


# In all of them.


def capture_logs(**_: Any) -> None:  # noqa: ANN401
    logs.install()
    stored_states.follow()
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
        if run.task.polls and state is State.RETRY:
            run.ended = True  # and the next attempt looks again
        else:
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
        never_raising(note_rejected)(sender=consumer, message=message, exc=exc)
        report(message, exc)

    consumer.on_decode_error = note
    if getattr(consumer, "task_consumer", None) is not None:
        consumer.task_consumer.on_decode_error = note


def _stored_state(run: Run) -> State | None:
    """Return the state that the task itself has stored, or None if it is not a final one."""
    name, meta = run.stored or (None, None)
    state = STATE_BY_CELERY_NAME.get(name) if type(name) is str else None
    if state is State.FAILURE:
        if is_of(meta, BaseException):
            run.fail(meta)
        else:
            run.fail_as_stored(meta)
    return state


def _original(error: BaseException) -> BaseException:
    """Return the exception as raised, even if Celery has replaced it by one that can be pickled."""
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
