"""Recording may fail; the task that is recorded must not notice."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def never_raising(function: Callable[P, None]) -> Callable[P, None]:
    """Log what the function raises, and go on."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            logger.exception("Recording failed in %s", function.__name__)

    return call
