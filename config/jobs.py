"""Share the threads of the web server among its clients.

A client is whoever has one token, one session or, without them, one address. A request may hold a
thread for many seconds, while Postgres works on it or while it waits. So that no client can stop
the others, it has at most half of the threads and half of the queue.
"""

from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.http import parse_cookie

from events.errors import API_PREFIX

T = TypeVar("T")


@dataclass(slots=True)
class _Share(Generic[T]):
    """The jobs of one client."""

    running: int = 0
    """The number of jobs that have a thread, or will have the next one that is free."""
    waiting: deque[T] = field(default_factory=deque)


class Jobs(Generic[T]):
    """The jobs of a fixed number of threads, which call `get` in a loop.

    All other methods must be called in one and the same thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        """Take the number of threads, and how many jobs may wait for one."""
        self.threads = threads
        self._most = threads + queue
        self._running_of_one = max(threads // 2, 1)
        self._most_of_one = self._running_of_one + queue // 2
        self._shares: dict[str, _Share[T]] = {}
        self._count = 0
        self._next: SimpleQueue[T] = SimpleQueue()

    def has_room(self, client: str) -> bool:
        """Return True if there may be one more job, of this client."""
        share = self._shares.get(client)
        return self._count < self._most and (
            share is None or share.running + len(share.waiting) < self._most_of_one
        )

    def put(self, client: str, job: T) -> bool:
        """Add a job of this client. Return True if a thread is free for it."""
        share = self._shares.setdefault(client, _Share())
        self._count += 1
        if share.running == self._running_of_one:
            share.waiting.append(job)
            return False
        share.running += 1
        self._next.put(job)
        return self._count <= self.threads

    def get(self) -> T:
        """Return the next job. Wait until there is one."""
        return self._next.get()

    def end(self, client: str) -> None:
        """Forget a job of this client that has ended, and let its next one have a thread."""
        share = self._shares[client]
        self._count -= 1
        if share.waiting:
            self._next.put(share.waiting.popleft())
            return
        share.running -= 1
        if not share.running:
            del self._shares[client]


def client_key(environ: dict[str, Any]) -> str:
    """Return a text that is the same for all requests of one client.

    It is not checked if the token or the session exists: a request with a wrong one ends soon.
    """
    if environ["PATH_INFO"].startswith(API_PREFIX):
        # The scheme and the spaces may vary for one token.
        if words := environ.get("HTTP_AUTHORIZATION", "").split():
            return f"token {words[-1]}"
    else:
        cookies = parse_cookie(environ.get("HTTP_COOKIE", ""))
        if session := cookies.get(settings.SESSION_COOKIE_NAME):
            return f"session {session}"
    return f"address {environ['REMOTE_ADDR']}"
