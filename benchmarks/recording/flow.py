"""Send the signals of one task as Celery sends them, without a broker and a worker."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from celery import signals
from celery.app.task import Context
from celery.app.trace import build_tracer, fast_trace_task, setup_worker_optimizations
from celery.worker.request import Request
from kombu import Message, serialization

from benchmarks.recording import tasks
from config.celery import app
from systemtasks.capture.celery.options import AnyTask

Step = tuple[str, Callable[[], object]]
"""A step of a task: its name, which is that of the signal it sends, if any, and its function."""

LINE = "a logged line"
WHOLE = "a whole task"
HOST = "benchmark@here"
WHERE = {"exchange": "", "routing_key": "celery"}


def prepare() -> None:
    """Prepare logging and the tasks as a worker does. The output of logging is discarded."""
    setup_worker_optimizations(app, HOST)
    noop = app.tasks[tasks.noop.name]
    noop.__trace__ = build_tracer(noop.name, noop, app.loader, HOST, app=app)
    # Sends `after_setup_logger` and `after_setup_task_logger`.
    app.log.setup(loglevel=logging.INFO, logfile=os.devnull, redirect_stdouts=False)
    signals.worker_process_init.send(sender=None)


def success(number: int) -> Iterator[Step]:
    """Yield the steps of a task that logs one line and succeeds."""
    celery_id = str(uuid4())
    noop = app.tasks[tasks.noop.name]  # as a worker has it; the module's own is a proxy
    message = _sent(noop, celery_id, number)
    yield from _published(noop, message)
    yield from _begun(noop, celery_id, number, message.headers)
    yield LINE, lambda: noop.run(number)
    yield "task_success", lambda: signals.task_success.send(noop, result=None, runtime=0.0)
    yield from _ended(noop, celery_id, number, "SUCCESS")


def failure(number: int) -> Iterator[Step]:
    """Yield the steps of a task that raises an exception."""
    celery_id = str(uuid4())
    fail = app.tasks[tasks.fail.name]
    yield from _begun(fail, celery_id, number)
    try:
        fail.run(number)
    except ValueError as raised:
        error = raised
        yield (
            "task_failure",
            lambda: signals.task_failure.send(
                fail,
                task_id=celery_id,
                exception=error,
                args=(number,),
                kwargs={},
                traceback=error.__traceback__,
                einfo=None,
            ),
        )
    yield from _ended(fail, celery_id, number, "FAILURE")


def whole(number: int) -> Iterator[Step]:
    """Yield steps that each run a task as a worker's child does: with Celery's tracer and signals.

    The tasks log one line and succeed. A step takes the time that a task takes in its own thread.
    """
    task = app.tasks[tasks.noop.name]
    messages = [_taken(_sent(task, str(uuid4()), index)) for index in range(number)]
    for message in messages:
        signals.before_task_publish.send(task.name, headers=message.headers)
        # As in the worker's main process, which hands its dictionary on.
        taken = Request(message, app=app, task=task, hostname=HOST)
        signals.task_received.send(None, request=taken)
        request = dict(taken.request_dict)
        content = message.body, message.content_type, message.content_encoding
        yield WHOLE, partial(fast_trace_task, task.name, request["id"], request, *content)


def _published(task: AnyTask, message: Any) -> Iterator[Step]:  # noqa: ANN401 - Celery's own
    common = {"body": message.body, "headers": message.headers, **WHERE}
    yield (
        "before_task_publish",
        lambda: signals.before_task_publish.send(
            task.name, **common, declare=[], properties=message.properties, retry_policy={}
        ),
    )
    yield "after_task_publish", lambda: signals.after_task_publish.send(task.name, **common)
    request = Request(_taken(message), app=app, task=task, hostname=HOST)
    yield "task_received", lambda: signals.task_received.send(None, request=request)
    message.headers.update(request.request_dict)  # with which the worker starts the task


def _sent(task: AnyTask, celery_id: str, number: int) -> Any:  # noqa: ANN401 - Celery's own
    """Return a task's message as its sender makes it."""
    return app.amqp.as_task_v2(celery_id, task.name, (number,), {}, origin="benchmark")


def _taken(message: Any) -> Message:  # noqa: ANN401
    """Return the message as a worker receives it from its broker."""
    content_type, encoding, body = serialization.dumps(message.body, serializer="json")
    return Message(
        body, content_type=content_type, content_encoding=encoding, headers=message.headers,
        properties=message.properties, delivery_info=WHERE,
    )  # fmt: skip


def _begun(
    task: AnyTask, celery_id: str, number: int, headers: Mapping[str, Any] | None = None
) -> Iterator[Step]:
    task.request_stack.push(
        Context(
            dict(headers or {}),
            id=celery_id,
            args=(number,),
            kwargs={},
            task=task.name,
            hostname=HOST,
            delivery_info=WHERE,
            called_directly=False,
        )
    )
    yield (
        "task_prerun",
        lambda: signals.task_prerun.send(
            task, task_id=celery_id, task=task, args=(number,), kwargs={}
        ),
    )


def _ended(task: AnyTask, celery_id: str, number: int, state: str) -> Iterator[Step]:
    yield (
        "task_postrun",
        lambda: signals.task_postrun.send(
            task, task_id=celery_id, task=task, args=(number,), kwargs={}, retval=None, state=state
        ),
    )
    task.request_stack.pop()
