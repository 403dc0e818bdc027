"""What a task's own threads log belongs to the task's run.

`Thread.start` notes on the thread which run starts it, and what is logged there later goes by that
note. Neither `run` nor what a thread calls is replaced, for others (Sentry, OpenTelemetry) replace
them in ways of their own. Only a pool's threads, which serve many runs, are given functions that
are wrapped.

Where Python hands the context of a thread to those that it starts (with `thread_inherit_context`,
from 3.14 on), the context says which run it is, and `Thread.start` is left alone.
"""

import logging
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

from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run

logger = logging.getLogger(__name__)

POOL_METHODS = (
    *("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered"),
)
"""The methods of ThreadPool that take a function; `apply` calls the first of them."""

OBSERVERS = ("ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk")
"""Packages whose threads serve the whole process, whichever run happens to need one first."""

PLAIN_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)

Arguments = tuple[Any, ...]
Prepare = Callable[[Run | None, Arguments, dict[str, Any]], Arguments]
"""Takes the current run and a call's arguments; returns the positional ones to call with.

It may change the dictionary of the others.
"""


@dataclass(frozen=True, slots=True)
class _Wrapper:
    method: Callable[..., Any]
    replaced: object
    """What the class had in its place; None where it inherits the method."""


_wrappers: dict[tuple[type, str], _Wrapper] = {}
_following = False


def follow() -> None:
    """Have threads, and what is handed to their pools, belong to the run that is current.

    To call it again wraps nothing twice, and wraps what has been unwrapped in the meantime.
    """
    global _following
    _following = True
    if not getattr(sys.flags, "thread_inherit_context", False):
        # Once where Thread defines it, of which gevent makes a subclass, and wherever it is
        # overridden: OpenTelemetry's `Timer.start` calls the `Thread.start` that it found.
        for owner in {*threading.Thread.__mro__, *threading.Timer.__mro__}:
            if "start" in vars(owner):
                _wrap(owner, "start", _note_run)
    _wrap(ThreadPoolExecutor, "submit", _bind_submitted, detach=True)
    _wrap(ThreadPool, "__init__", _bind_all, detach=True)
    for name in POOL_METHODS:
        _wrap(ThreadPool, name, _bind_all)


def unfollow() -> None:
    """Follow no more threads, and put back what was wrapped.

    A wrapper that others have wrapped stays where it is, and does nothing.
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
    """Have calls of this method prepared; with `detach`, threads that it starts have no run."""
    found = vars(owner).get(name)
    wrapper = _wrappers.get((owner, name))
    if wrapper is not None and found is not wrapper.replaced:
        return  # it is in place, or within somebody else's
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
            raise  # it is the task's, which happens to be here
        except Exception:
            logger.exception("A thread is not followed")
        if run is None or not detach:
            return original(*args, **kwargs)
        # Without a token: a signal's exception may come anywhere, and leaves the run current.
        try:
            recorder.current.set(None)
            return original(*args, **kwargs)
        finally:
            recorder.current.set(run)

    setattr(owner, name, method)
    _wrappers[owner, name] = _Wrapper(method, found)


def _inherited(owner: type, name: str) -> Callable[..., Any]:
    """Return a function that calls the base class's method, as it is by then."""

    @wraps(getattr(owner, name))
    def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(super(owner, args[0]), name)(*args[1:], **kwargs)

    return method


def _note_run(run: Run | None, args: Arguments, _: dict[str, Any]) -> Arguments:
    thread = args[0]
    if thread.ident is None:  # otherwise it runs already, and this call raises an error
        recorder.assign(thread, None if _is_of_an_observer(thread) else run)
    return args


def _is_of_an_observer(thread: threading.Thread) -> bool:
    # What a thread calls is known by this name only.
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None))
    return any(str(module).partition(".")[0] in OBSERVERS for module in modules)


def _bind_submitted(run: Run | None, args: Arguments, _: dict[str, Any]) -> Arguments:
    """Have the function, the first argument, called in the run."""
    if run is None or len(args) < 2 or _is_of_interpreters(args[0]):
        return args
    executor, function, *others = args
    return executor, _bound(run, function), *others


def _bind_all(run: Run | None, args: Arguments, kwargs: dict[str, Any]) -> Arguments:
    """Have the function and the callbacks called, and iterators read, in the run."""
    if run is None:
        return args
    pool, *others = args
    bound = (pool, *(_bound(run, value) for value in others))
    kwargs.update({name: _bound(run, value) for name, value in kwargs.items()})
    return bound


def _is_of_interpreters(executor: object) -> bool:
    """Return True if what is submitted is pickled, for an interpreter of its own (Python 3.14)."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(executor, module.InterpreterPoolExecutor)


def _bound(run: Run, value: Any) -> Any:  # noqa: ANN401
    """Return what does the same in the run as this function or iterator; other values as given."""
    if callable(value):
        return _function_in(run, value)
    return _iterator_in(run, value) if hasattr(type(value), "__next__") else value


def _function_in(run: Run, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        thread = threading.current_thread()
        before = recorder.assigned(thread)
        token = recorder.current.set(run)
        # As well, for a context that was copied where no run was set, as in a noted thread.
        recorder.assign(thread, run)
        try:
            return function(*args, **kwargs)
        finally:
            recorder.assign(thread, before)
            with suppress(ValueError):  # the function may leave another context behind
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
