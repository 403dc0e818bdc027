"""A thread that works in the background for as long as its process lives."""

import os
import threading
import time
from collections.abc import Callable
from contextvars import Context
from weakref import WeakSet

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs import recorder
from systemtasks.runs.exceptions import ExceptionText

logger = own_logger(__name__)

RESTART_INTERVAL = 5.0  # seconds at least between two starts of a thread that dies


class BackgroundThread:
    """A daemon thread that is started when it is first needed.

    A thread that has died is started again: by itself if `target` has raised, else by the next call
    of `start`. The log says why it died.

    A fork copies a process's memory, but none of its other threads. In a forked child this object
    is therefore reset: it has no thread, and a lock that is free. `after_fork` is called there to
    reset the state of the thread's owner.
    """

    def __init__(
        self, target: Callable[[], None], *, name: str, after_fork: Callable[[], None]
    ) -> None:
        """Set the thread's target and name. Python and the log show the name."""
        self._target = target
        self._name = name
        self._after_fork = after_fork
        # Reentrant, because a finalizer or a logging handler may need the thread while it is held.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._death = ""  # why the last thread died, or was not started
        self._next_start = 0.0  # when to start the next one if it has died, by the monotonic clock
        self.is_running = False
        """True while the thread calls its target. It is cheaper to read than `is_alive`."""
        _of_this_process.add(self)

    @property
    def is_alive(self) -> bool:
        """Return True if the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self, *, at_once: bool = False) -> None:
        """Start the thread, unless it runs already or has just died. Never raise.

        With `at_once`, start it even if it has just died.
        """
        error = self._start(at_once)
        if error is not None:
            logger.error(
                "The thread %s does not start: %s", self._name, _text(error), exc_info=error
            )

    def _start(self, at_once: bool) -> Exception | None:
        """Start the thread, unless it is too early. Return the error if that fails."""
        with self._lock:
            if self.is_alive:
                return None
            if self._thread is not None and not self._death:
                self._death = "it is not known why"
            now = time.monotonic()
            if self._death and now < self._next_start and not at_once:
                return None
            self._next_start = now + RESTART_INTERVAL
            self._thread = threading.Thread(
                target=self._run, args=(self._death,), name=self._name, daemon=True
            )
            self._death = ""
            # An empty context, since the thread does not belong to the task or request that starts
            # it.
            context = Context()
            context.run(recorder.current.set, None)
            try:
                context.run(self._thread.start)
            except Exception as error:  # noqa: BLE001 - a task must not fail for it
                self._death = _text(error)
                return error
            return None

    def _run(self, death: str) -> None:
        """Call the target. `death` is the reason why the previous thread died, or ""."""
        recorder.current.set(None)  # the thread may not run in the context of its start
        if death:
            logger.error("The thread %s had died and is started again: %s", self._name, death)
        self.is_running = True
        try:
            try:
                self._target()
            finally:
                self.is_running = False
        except BaseException as error:
            with self._lock:
                self._thread, self._death = None, _text(error)
            self.start()
            raise
        with self._lock:
            self._thread = None

    def begin_anew(self) -> None:
        """Reset the thread and the lock in a forked child, and call `after_fork`."""
        self._lock = threading.RLock()
        self._thread = None
        self._death = ""
        self._next_start = 0.0
        self.is_running = False
        self._after_fork()


_of_this_process: "WeakSet[BackgroundThread]" = WeakSet()


def _begin_anew() -> None:
    for thread in list(_of_this_process):
        thread.begin_anew()


def _text(error: BaseException) -> str:
    return ExceptionText.of(error, conf().TEXT_LIMIT).line


os.register_at_fork(after_in_child=_begin_anew)
