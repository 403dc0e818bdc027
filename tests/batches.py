"""Replace celery-batches 0.11, which refuses Celery 5.7: its messages, and how it runs them.

System Tasks knows its class SimpleRequest by the module `celery_batches`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from celery import signals
from celery._state import _task_stack  # type: ignore[attr-defined]
from celery.app.task import Context

logger = logging.getLogger("celery_batches.trace")


@dataclass
class SimpleRequest:
    """A message of a batch."""

    id: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    delivery_info: dict[str, Any] | None = None
    hostname: str | None = None
    request_dict: dict[str, Any] | None = None


def apply_batches_task(task: Any, args: tuple[Sequence[SimpleRequest]]) -> None:
    """Run the task for these messages, as `celery_batches.trace.apply_batches_task` does."""
    task_id, result, state = str(uuid4()), None, "SUCCESS"
    _task_stack.push(task)
    task.request_stack.push(Context(loglevel=0, logfile=None))
    try:
        signals.task_prerun.send(sender=task, task_id=task_id, task=task, args=args, kwargs={})
        try:
            result = task(*args)
        except Exception as error:
            state = "FAILURE"
            logger.exception("Error: %r", error)  # noqa: TRY401
        else:
            signals.task_success.send(sender=task, result=result)
    finally:
        signals.task_postrun.send(
            sender=task,
            task_id=task_id,
            task=task,
            args=args,
            kwargs={},
            retval=result,
            state=state,
        )
        _task_stack.pop()
        task.request_stack.pop()
