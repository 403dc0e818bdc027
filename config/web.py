"""Run the web server: `python -m config.web`. `make up` and docker-compose.yml start it.

Its limits are the settings whose names begin with WEB_. Granian does not limit the bodies of
requests; config/asgi.py does.
"""

import argparse
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

import granian
from django.conf import settings
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from config.sockets import most_connections

ENDING = (signal.SIGINT, signal.SIGTERM)
HEADER_BYTES = 65_536
"""The maximum size of a request's header, in bytes."""
STOP_SECONDS = 25
"""Seconds that requests have to end after a signal to stop. Compose kills the server after 30."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m config.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--log-level", choices=[level.value for level in LogLevels], default="info")
    given = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    web = server(given.host, given.port, LogLevels(given.log_level))
    web.on_startup(handle_signals_in_a_thread)
    os.register_at_fork(after_in_child=end_by_signals)
    web.serve()


def server(host: str, port: int, log_level: LogLevels) -> Any:  # noqa: ANN401 - it has no type
    """Return the server, which has not started yet."""
    return granian.Granian(
        "config.asgi:application",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=settings.WEB_WORKERS,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
        # While Granian waits for the first bytes, to find out if they are HTTP/2, it has no
        # time-out: a client that sends nothing could stay connected forever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=settings.WEB_HEADER_SECONDS * 1000,
            max_buffer_size=HEADER_BYTES,
        ),
        websockets=False,
        loop=Loops.uvloop,
        # This is the number of connections; at the limit, Granian accepts no more.
        backpressure=most_connections(settings.WEB_CONNECTIONS),
        backlog=2048,
        log_level=log_level,
    )


def handle_signals_in_a_thread() -> None:
    """Call Granian's handlers of SIGINT and SIGTERM from a thread.

    Python calls a handler in the main thread, which waits for a lock here. If the system delivers
    the signal to another thread, as it may for a second signal, Python does not call the handler.
    If the main thread holds the lock that the handler needs, the handler waits forever.
    """
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING}
    received, sent = socket.socketpair()
    sent.setblocking(False)

    def call_handlers(_sent: socket.socket) -> None:
        while True:
            for number in received.recv(16):
                if number in handlers:
                    handlers[number](number, None)

    signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    for number in ENDING:
        signal.signal(number, _do_nothing)
    threading.Thread(target=call_handlers, args=(sent,), daemon=True).start()


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Without a handler, Python would not write the signal to the wake-up file."""


def end_by_signals() -> None:
    """Restore the default handlers of the signals in a worker that was just forked.

    Otherwise a signal would be lost until the worker has loaded the application.
    """
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
