"""Recording may fail; the task that is recorded must not notice."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.runs.exceptions import log_handled
from systemtasks.storage.failures import failures

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def counting(receiver: Callable[..., None]) -> Callable[..., None]:
    """Return a receiver that counts what the given one raises, which Celery then logs."""

    @wraps(receiver)
    def call(**arguments: object) -> None:
        try:
            receiver(**arguments)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            failures.count(f"recording, in {receiver.__name__}")
            raise

    return call


def never_raising(function: Callable[P, None]) -> Callable[P, None]:
    """Log what the function raises, and go on.

    A soft time limit is not the function's: Celery raises it wherever the task happens to be.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the task goes on
            failures.count(f"recording, in {function.__name__}")
            log_handled(logger, "Recording failed in %s", function.__name__)

    return call
