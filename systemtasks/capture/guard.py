"""Keep failures of recording away from the task that is recorded."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.own_logger import own_logger
from systemtasks.runs.exceptions import log_handled
from systemtasks.storage.failures import failures

logger = own_logger(__name__)

P = ParamSpec("P")


def counting(receiver: Callable[..., None]) -> Callable[..., None]:
    """Return a receiver that counts and re-raises the exceptions of the given one.

    Celery logs them.
    """

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
    """Return a function that logs and counts exceptions instead of raising them.

    SoftTimeLimitExceeded still propagates: it is meant for the task. Celery raises it in any code
    that runs at that moment.
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
