"""A thread that works in the background for as long as its process lives."""

import os
import threading
from collections.abc import Callable
from contextvars import Context


class BackgroundThread:
    """A daemon thread that is started when it is first needed.

    A fork copies a process's memory, but none of its other threads. In a forked child this object
    therefore begins anew: without a thread, and with a lock that nobody holds. `after_fork` is
    called there to do the same to the state of the thread's owner.

    A thread that has died is replaced by the next call of `start`. Make one of these for the life
    of the process: Python keeps what is called after a fork until the process ends.
    """

    def __init__(
        self, target: Callable[[], None], *, name: str, after_fork: Callable[[], None]
    ) -> None:
        self._target = target
        self._name = name
        self._after_fork = after_fork
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._begin_anew)

    @property
    def is_alive(self) -> bool:
        """True if the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        if self.is_alive:
            return
        with self._lock:
            if self.is_alive:
                return
            thread = threading.Thread(target=self._target, name=self._name, daemon=True)
            # An empty context: the thread is no part of the task or request that starts it.
            Context().run(thread.start)
            self._thread = thread

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._thread = None
        self._after_fork()
