"""The ASGI application that the web server serves: Django, in a fixed number of threads.

A request gets a thread once its whole body has arrived. A client that sends its body slowly, or
never, therefore costs only a little memory.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from threading import Thread
from typing import Any
from urllib.parse import unquote_to_bytes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from config.wsgi import application as django_application  # it sets Django up

# isort: split
from django.conf import settings
from rest_framework.exceptions import APIException

from config.jobs import Jobs, client_key
from config.sockets import end_unread_connections
from events.errors import BodyTooLarge, BodyTooSlow, Overloaded, refusal

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Environ = dict[str, Any]
WSGIApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""The status, the headers and the body."""

LIVE = "/-/health/live/"
MOST_BODIES = 64
"""The number of bodies of the largest size that a process holds at once."""


class DisconnectedError(Exception):
    """The client has gone away."""


class Application:
    """Runs a WSGI application in a fixed number of threads."""

    def __init__(
        self,
        wsgi: WSGIApplication,
        *,
        threads: int,
        queue: int,
        body_bytes: int,
        body_seconds: float,
    ) -> None:
        """Take the WSGI application and the limits.

        At most `queue` requests wait for one of the threads. See `Jobs` for what one client has.
        """
        self._wsgi = wsgi
        self._body_bytes = body_bytes
        self._body_seconds = body_seconds
        self._held = 0  # bytes of bodies; only the event loop's thread changes it
        self._jobs: Jobs[tuple[str, Environ, asyncio.Future[Answer]]] = Jobs(threads, queue)
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life. This is the ASGI application."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["path"] == LIVE:
            answer: Answer = (204, [], b"")
        else:
            try:
                answer = await self._answer(scope, receive)
            except DisconnectedError:
                return
            except APIException as error:
                answer = _refuse(scope, error)
            except Exception:
                logger.exception("%s %s failed", scope["method"], scope["path"])
                answer = _refuse(scope, APIException())
        status, headers, body = answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        environ = _environ(scope)
        if not (environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ):
            return await self._ask(environ, b"", receive)
        body = bytearray()
        try:
            await self._read(environ, receive, body)
            return await self._ask(environ, bytes(body), receive)
        finally:
            self._held -= len(body)

    async def _read(self, environ: Environ, receive: Receive, body: bytearray) -> None:
        """Append what the client sends to `body`. Raise an error if a limit is exceeded."""
        if int(environ.get("CONTENT_LENGTH", 0)) > self._body_bytes:
            raise BodyTooLarge
        try:
            async with asyncio.timeout(self._body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise DisconnectedError
                    part = message.get("body", b"")
                    body += part
                    self._held += len(part)
                    if len(body) > self._body_bytes:
                        raise BodyTooLarge
                    if self._held > self._body_bytes * MOST_BODIES:
                        raise Overloaded
                    more = message.get("more_body", False)
        except TimeoutError:
            raise BodyTooSlow from None

    async def _ask(self, environ: Environ, body: bytes, receive: Receive) -> Answer:
        """Return the answer of a thread. Raise Overloaded if too many requests wait for one."""
        client = client_key(environ)
        if not self._jobs.has_room(client):
            raise Overloaded
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self._jobs.put(client, (client, environ, answer)):
            await _while_connected(answer, receive)
        return await answer

    def _work(self) -> None:
        """Answer requests, one after the other. This runs in each thread."""
        while True:
            client, environ, answer = self._jobs.get()
            result: Answer | Exception | None = None
            if not answer.cancelled():
                try:
                    result = _call(self._wsgi, environ)
                except Exception as error:  # noqa: BLE001 - it is raised in the event loop
                    result = error
                except BaseException as error:  # noqa: BLE001 - it would end the event loop
                    result = RuntimeError(f"the application raised {error!r}")
            with suppress(RuntimeError):  # the event loop is closed
                answer.get_loop().call_soon_threadsafe(self._end, client, answer, result)

    def _end(
        self,
        client: str,
        answer: "asyncio.Future[Answer]",
        result: Answer | Exception | None,
    ) -> None:
        self._jobs.end(client)
        if answer.cancelled() or result is None:
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)


async def _while_connected(answer: "asyncio.Future[Answer]", receive: Receive) -> None:
    """Wait for an answer. If the client goes away, cancel it and raise DisconnectedError."""
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not answer.done():
        answer.cancel()
        raise DisconnectedError


async def _disconnect(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _call(wsgi: WSGIApplication, environ: Environ) -> Answer:
    """Return the whole answer of the WSGI application."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        started[:] = int(status[:3]), headers

    parts = wsgi(environ, start_response)
    try:
        body = b"".join(parts)
    finally:
        if close := getattr(parts, "close", None):
            close()
    status, headers = started
    return status, [(a.lower().encode("latin-1"), b.encode("latin-1")) for a, b in headers], body


def _environ(scope: Message) -> Environ:
    """Return a request's WSGI environ, without its body."""
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        # X_Forwarded_Proto would be taken for the X-Forwarded-Proto that a proxy sets.
        if b"_" not in name:
            key, text = _key(name), value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
            environ[key] = text
    return environ


@lru_cache(maxsize=256)
def _key(name: bytes) -> str:
    """Return a header's key in the WSGI environ."""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _refuse(scope: Message, error: APIException) -> Answer:
    """Return the answer to a request that is refused before a view is called."""
    response = refusal(scope["path"], error)
    headers = [(a.lower().encode("latin-1"), b.encode("latin-1")) for a, b in response.items()]
    return response.status_code, headers, response.content


async def _live(receive: Receive, send: Send) -> None:
    """Answer the messages of ASGI's lifespan protocol: the server's start and its end."""
    await receive()
    limit = asyncio.create_task(_limit_sending())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    limit.cancel()
    await send({"type": "lifespan.shutdown.complete"})


async def _limit_sending() -> None:
    """Limit how long clients may leave an answer unread. Wait until the server listens."""
    while not end_unread_connections(settings.WEB_SEND_SECONDS):
        await asyncio.sleep(0.1)


application = Application(
    django_application,
    threads=settings.WEB_THREADS,
    queue=settings.WEB_QUEUE,
    body_bytes=settings.WEB_BODY_BYTES,
    body_seconds=settings.WEB_BODY_SECONDS,
)
