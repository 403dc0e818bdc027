"""Set the operating system's limits on the web server's connections."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OTHER_FILES = 100
"""The number of files that a process may have open besides its connections to clients."""

OPEN_FILES = Path("/proc/self/fd")


def most_connections(wanted: int) -> int:
    """Return how many connections each process may have: `wanted`, or fewer.

    Raise the limit on open files for them, as far as the hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - OTHER_FILES, 1)


def end_unread_connections(seconds: int) -> bool:
    """Make the kernel disconnect a client that leaves an answer unread for `seconds`.

    This applies to connections that this process accepts from now on. Return False if it does not
    listen yet. On systems other than Linux, do nothing and return True.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return True
    listens = False
    for listener in _listeners():
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
        listens = True
    return listens


def _listeners() -> Iterator[socket.socket]:
    """Yield the sockets on which this process accepts connections over TCP."""
    for file in OPEN_FILES.iterdir():
        if file.is_socket():
            with suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and found.family in (socket.AF_INET, socket.AF_INET6):
                    yield found
