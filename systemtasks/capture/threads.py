"""What a task's own threads log belongs to the task's run.

Before Python 3.14 a new thread knows nothing of its starter's context variables. This hands on the
one that says which run it is, and no other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from systemtasks.runs.recorder import Run, current


def follow() -> None:
    """Have threads, and what is submitted to their pools, belong to the run that is current."""
    _wrap(threading.Thread, "start", _start)
    _wrap(ThreadPoolExecutor, "submit", _submit)


def _wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    if getattr(original, "__systemtasks__", False):
        return

    @wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the original takes
        run = current.get()
        return original(*args, **kwargs) if run is None else around(original, run, *args, **kwargs)

    method.__systemtasks__ = True  # type: ignore[attr-defined]
    setattr(owner, name, method)


def _start(original: Callable[..., Any], run: Run, thread: threading.Thread) -> None:
    thread.run = _inside(run, thread.run)  # type: ignore[method-assign]
    original(thread)


def _submit(
    original: Callable[..., Any],
    run: Run,
    executor: ThreadPoolExecutor,
    function: Callable[..., Any],
    /,
    *args: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    # The pool's own threads serve many runs.
    token = current.set(None)
    try:
        return original(executor, _inside(run, function), *args, **kwargs)
    finally:
        current.reset(token)


def _inside(run: Run, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        token = current.set(run)
        try:
            return function(*args, **kwargs)
        finally:
            current.reset(token)

    return call
