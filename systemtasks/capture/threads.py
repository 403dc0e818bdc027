"""Assign what a task's own threads log to the task's run.

`Thread.start` is wrapped. It assigns the current run to the thread, and messages logged in the
thread are added to that run. A thread's `run` and its target are not wrapped, because other
packages (Sentry, OpenTelemetry) wrap them, too. A pool's threads serve many runs, so the functions
that are submitted to a pool are wrapped instead.

If Python copies a thread's context to the threads that it starts (`thread_inherit_context`, from
3.14 on), the context contains the run, and `Thread.start` is not wrapped.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from multiprocessing.pool import ThreadPool
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.own_logger import own_logger
from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run

logger = own_logger(__name__)

POOL_METHODS = (
    "apply_async",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
    "imap",
    "imap_unordered",
)
"""The methods of ThreadPool that take a function. `apply` calls `apply_async`."""

OBSERVERS = ("ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk")
"""Packages whose threads serve the whole process, and not the run that happens to start them."""

PLAIN_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)

Arguments = tuple[Any, ...]
Prepare = Callable[[Run | None, Arguments, dict[str, Any]], Arguments]
"""Called with the current run and a call's arguments. Returns the positional arguments to use.

It may change the dictionary of keyword arguments.
"""


@dataclass(frozen=True, slots=True)
class _Wrapper:
    method: Callable[..., Any]
    replaced: object
    """The method that the class had before, or None if it inherits the method."""


_wrappers: dict[tuple[type, str], _Wrapper] = {}
_following = False


def follow() -> None:
    """Assign new threads, and functions submitted to pools of threads, to the current run.

    A repeated call wraps nothing twice. It wraps again what has been unwrapped in the meantime.
    """
    global _following
    _following = True
    if not getattr(sys.flags, "thread_inherit_context", False):
        # `start` is wrapped in each class that defines it. With gevent, Thread is a subclass of
        # the original. With OpenTelemetry, `Timer.start` calls the `Thread.start` of before.
        for owner in {*threading.Thread.__mro__, *threading.Timer.__mro__}:
            if "start" in vars(owner):
                _wrap(owner, "start", _note_run)
    _wrap(ThreadPoolExecutor, "submit", _bind_submitted, detach=True)
    _wrap(ThreadPool, "__init__", _bind_all, detach=True)
    for name in POOL_METHODS:
        _wrap(ThreadPool, name, _bind_all)


def unfollow() -> None:
    """Stop following threads, and restore the wrapped methods.

    A wrapper that another package has wrapped stays in place and does nothing.
    """
    global _following
    _following = False
    for (owner, name), wrapper in list(_wrappers.items()):
        if vars(owner).get(name) is wrapper.method:
            if wrapper.replaced is None:
                delattr(owner, name)
            else:
                setattr(owner, name, wrapper.replaced)
            del _wrappers[owner, name]


def _wrap(owner: type, name: str, prepare: Prepare, *, detach: bool = False) -> None:
    """Wrap a method so that `prepare` is called before it.

    With `detach`, threads that the method starts do not belong to a run.
    """
    found = vars(owner).get(name)
    wrapper = _wrappers.get((owner, name))
    if wrapper is not None and found is not wrapper.replaced:
        return  # it is in place, or another package has wrapped it
    original = _inherited(owner, name) if found is None else getattr(owner, name)

    @wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the original takes
        if not _following:
            return original(*args, **kwargs)
        run = None
        try:
            run = recorder.current_run()
            args = prepare(run, args, kwargs)
        except SoftTimeLimitExceeded:
            raise  # it is meant for the task, which this code interrupts
        except Exception:
            logger.exception("A thread is not followed")
        if run is None or not detach:
            return original(*args, **kwargs)
        # Without a token, since a signal handler may raise between taking it and the try block.
        try:
            recorder.current.set(None)
            return original(*args, **kwargs)
        finally:
            recorder.current.set(run)

    setattr(owner, name, method)
    _wrappers[owner, name] = _Wrapper(method, found)


def _inherited(owner: type, name: str) -> Callable[..., Any]:
    """Return a function that looks up the base class's method at each call, and calls it."""

    @wraps(getattr(owner, name))
    def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(super(owner, args[0]), name)(*args[1:], **kwargs)

    return method


def _note_run(run: Run | None, args: Arguments, _: dict[str, Any]) -> Arguments:
    thread = args[0]
    if thread.ident is None:  # otherwise the thread has been started, and `start` raises
        recorder.assign(thread, None if _is_of_an_observer(thread) else run)
    return args


def _is_of_an_observer(thread: threading.Thread) -> bool:
    # A thread has no public attribute for its target.
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None))
    return any(str(module).partition(".")[0] in OBSERVERS for module in modules)


def _bind_submitted(run: Run | None, args: Arguments, _: dict[str, Any]) -> Arguments:
    """Bind the submitted function, which is the first argument, to the run."""
    if run is None or len(args) < 2 or _is_of_interpreters(args[0]):
        return args
    executor, function, *others = args
    return executor, _bound(run, function), *others


def _bind_all(run: Run | None, args: Arguments, kwargs: dict[str, Any]) -> Arguments:
    """Bind all functions, callbacks and iterators among the arguments to the run."""
    if run is None:
        return args
    pool, *others = args
    bound = (pool, *(_bound(run, value) for value in others))
    kwargs.update({name: _bound(run, value) for name, value in kwargs.items()})
    return bound


def _is_of_interpreters(executor: object) -> bool:
    """Return True for an InterpreterPoolExecutor (Python 3.14), which pickles functions."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(executor, module.InterpreterPoolExecutor)


def _bound(run: Run, value: Any) -> Any:  # noqa: ANN401
    """Return the function or iterator bound to the run. Return other values unchanged."""
    if callable(value):
        return _function_in(run, value)
    return _iterator_in(run, value) if hasattr(type(value), "__next__") else value


def _function_in(run: Run, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        thread = threading.current_thread()
        before = recorder.assigned(thread)
        token = recorder.current.set(run)
        # Assigned as well, for code in a copied context without a run.
        recorder.assign(thread, run)
        try:
            return function(*args, **kwargs)
        finally:
            recorder.assign(thread, before)
            with suppress(ValueError):  # the function may have changed the context
                recorder.current.reset(token)

    if type(function) in PLAIN_FUNCTIONS:  # any other object may run code of its own when asked
        return wraps(function, updated=())(call)
    return call


def _iterator_in(run: Run, iterator: Iterator[Any]) -> Iterator[Any]:
    advance = _function_in(run, iterator.__next__)
    while True:
        try:
            item = advance()
        except StopIteration:
            return
        yield item
