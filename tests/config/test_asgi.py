"""The WSGI application gets the whole request, and its client the whole answer."""

import asyncio
import threading
from collections.abc import Callable, MutableMapping
from typing import Any

import orjson
import pytest
from django.core.signals import request_finished

from config import asgi
from config.asgi import Application
from config.wsgi import application as django
from tests.waiting import eventually

API = "/api/v3/events/system_tasks/"
Headers = tuple[tuple[bytes, bytes], ...]
Message = MutableMapping[str, Any]


class Client:
    """Sends one request, and keeps the messages that it receives."""

    def __init__(
        self,
        target: str = "/",
        *parts: bytes,
        method: str = "GET",
        headers: Headers = (),
        more: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        """Make a request with these parts of a body. With `more`, the body is never complete."""
        path, _, query = target.partition("?")
        self.scope: Message = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"testserver"), *headers],
            "server": ("127.0.0.1", "8000"),
            "client": (address, "40000"),
        }
        self._parts = list(parts) or [b""]
        self._more = more
        self._gone = asyncio.Event()
        self._sent: list[Message] = []

    def go_away(self) -> None:
        self._gone.set()

    async def _receive(self) -> Message:
        if self._parts:
            body = self._parts.pop(0)
            return {
                "type": "http.request",
                "body": body,
                "more_body": bool(self._parts or self._more),
            }
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.append(message)

    async def ask(self, application: Application) -> "Client":
        """Return once the request is over."""
        await application(self.scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int | None:
        """Return the status of the answer, or None if there is no answer."""
        return self._sent[0]["status"] if self._sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self._sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self._sent[1:])


class Upstream:
    """A WSGI application that keeps the requests, and answers as soon as it may."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked.append(environ)
        assert self.may_answer.wait(30)
        self.bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"an ", b"answer"]


def serving(wsgi: Any, **limits: Any) -> Application:
    """Return the application. Its limits are high, except those that a test names."""
    chosen = {"threads": 1, "queue": 10, "body_bytes": 1000, "body_seconds": 30, **limits}
    return Application(wsgi, **chosen)


def ask(client: Client, wsgi: Any, **limits: Any) -> Client:
    return asyncio.run(client.ask(serving(wsgi, **limits)))


def post(*parts: bytes, path: str = "/", length: int | None = None, more: bool = False) -> Client:
    """Return a POST with a Content-Length, or one in chunks."""
    header = (
        (b"transfer-encoding", b"chunked")
        if length is None
        else (b"content-length", b"%d" % length)
    )
    return Client(path, *parts, method="POST", headers=(header,), more=more)


async def until(met: Callable[[], bool]) -> None:
    """Wait until the event loop and the threads make the condition true."""
    assert await asyncio.to_thread(eventually, met)


# What the WSGI application gets


def test_a_request_becomes_what_wsgi_has_of_it() -> None:
    upstream = Upstream()
    headers = (
        (b"accept", b"text/html"),
        (b"accept", b"text/plain"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"content-type", b"text/plain"),
        (b"x-name", b"Andr\xe9"),
    )
    ask(Client("/a%ffb%2Fc?x=%20", headers=headers), upstream)
    (environ,) = upstream.asked
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a\xffb/c",
        "QUERY_STRING": "x=%20",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "testserver",
        "HTTP_ACCEPT": "text/html,text/plain",
        "HTTP_COOKIE": "a=1; b=2",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "0",
        "HTTP_X_NAME": "Andr\xe9",
    }
    assert {key: text for key, text in environ.items() if not key.startswith("wsgi.")} == expected


def test_a_header_with_underscores_stands_for_none_that_a_proxy_sets() -> None:
    upstream = Upstream()
    ask(Client(headers=((b"x_forwarded_proto", b"https"),)), upstream)
    assert "HTTP_X_FORWARDED_PROTO" not in upstream.asked[0]


@pytest.mark.parametrize("length", [6, None])
def test_a_body_is_handed_over_whole_with_its_length(length: int | None) -> None:
    upstream = Upstream()
    ask(post(b"ab", b"", b"cdef", length=length), upstream)
    assert upstream.bodies == [b"abcdef"]
    assert upstream.asked[0]["CONTENT_LENGTH"] == "6"


# What the client gets


def test_an_answer_is_sent_in_one_piece() -> None:
    client = ask(Client(), Upstream())
    assert client.status == 200
    assert client.headers == {b"content-type": b"text/plain"}
    assert client.body == b"an answer"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "status"),
    [(API, 403), ("/static/drf_spectacular_sidecar/swagger-ui-dist/favicon-32x32.png", 200)],
)
def test_django_knows_that_the_request_is_over(path: str, status: int) -> None:
    threads: list[str] = []

    def note(**_: Any) -> None:
        threads.append(threading.current_thread().name)

    request_finished.connect(note)
    try:
        client = ask(Client(path), django)
    finally:
        request_finished.disconnect(note)
    assert client.status == status
    assert len(client.body) == int(client.headers[b"content-length"])
    assert len(threads) == 1
    assert threads != [threading.main_thread().name]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_an_application_that_raises_is_500_and_is_asked_again(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/fine":
            start_response("204 No Content", [])
            return []
        raise error

    async def twice() -> list[Client]:
        application = serving(raising)
        return [await Client(path).ask(application) for path in (API, "/fine")]

    failed, fine = asyncio.run(twice())
    assert failed.status == 500
    assert orjson.loads(failed.body)["code"] == "error"
    assert fine.status == 204
    assert f"GET {API} failed" in caplog.text
    assert type(error).__name__ in caplog.text


# The body's limits


@pytest.mark.parametrize(
    "client",
    [post(path=API, length=1001), post(b"a" * 999, b"b" * 2, path=API, more=True)],
    ids=["length", "chunks"],
)
def test_a_body_that_is_too_large_is_413_without_a_thread(client: Client) -> None:
    upstream = Upstream()
    ask(client, upstream)
    assert client.status == 413
    assert orjson.loads(client.body)["code"] == "content_too_large"
    assert upstream.asked == []


def test_a_body_of_just_the_largest_size_is_taken() -> None:
    upstream = Upstream()
    assert ask(post(b"a" * 1000, length=1000), upstream).status == 200
    assert upstream.bodies == [b"a" * 1000]


@pytest.mark.parametrize(
    "client",
    [
        post(path=API, length=10, more=True),
        post(b"abc", path=API, more=True),
        Client(API, headers=((b"content-length", b"10"),), more=True),
    ],
    ids=["nothing", "a part", "of a GET"],
)
def test_a_body_that_does_not_come_in_time_is_408_without_a_thread(client: Client) -> None:
    upstream = Upstream()
    ask(client, upstream, body_seconds=0.01)
    assert client.status == 408
    assert orjson.loads(client.body)["code"] == "request_timeout"
    assert upstream.asked == []


def test_outside_the_api_a_refusal_is_text() -> None:
    client = ask(post(length=1001), Upstream())
    assert client.headers[b"content-type"].startswith(b"text/plain")
    assert client.body == b"The request's body is too large.\n"


def test_a_client_that_goes_away_in_the_midst_of_its_body_asks_nothing() -> None:
    upstream = Upstream()
    client = post(b"abc", length=10, more=True)
    client.go_away()
    ask(client, upstream)
    assert client.status is None
    assert upstream.asked == []


def test_bodies_have_a_limit_together_that_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "MOST_BODIES", 2)

    async def scenario() -> None:
        application = serving(Upstream())
        slow = [post(b"a" * 900, path=API, more=True) for _ in range(2)]
        waiting = [asyncio.create_task(client.ask(application)) for client in slow]
        await asyncio.sleep(0)
        one_more = await post(b"a" * 900, path=API).ask(application)
        assert one_more.status == 503
        assert (await Client().ask(application)).status == 200
        for client in slow:
            client.go_away()
        await asyncio.wait(waiting)
        assert (await post(b"a" * 900, path=API).ask(application)).status == 200

    asyncio.run(scenario())


# The threads


def test_liveness_is_answered_without_a_thread() -> None:
    upstream = Upstream()
    assert ask(Client("/-/health/live/"), upstream).status == 204
    assert upstream.asked == []


def test_requests_wait_for_a_thread_up_to_a_bound() -> None:
    upstream = Upstream()
    upstream.may_answer.clear()

    async def scenario() -> None:
        application = serving(upstream, threads=1, queue=2)
        clients = [Client(API, address=f"192.0.2.{number}") for number in range(3)]
        waiting = [asyncio.create_task(client.ask(application)) for client in clients]
        await until(lambda: len(upstream.asked) == 1)
        refused = await Client(API).ask(application)
        assert refused.status == 503
        assert refused.headers[b"retry-after"] == b"1"
        assert orjson.loads(refused.body)["code"] == "service_unavailable"
        upstream.may_answer.set()
        await asyncio.wait(waiting)
        assert [client.status for client in clients] == [200] * 3
        assert (await Client(API).ask(application)).status == 200

    asyncio.run(scenario())


def test_a_request_whose_client_has_gone_away_leaves_the_queue() -> None:
    upstream = Upstream()
    upstream.may_answer.clear()

    async def scenario() -> None:
        application = serving(upstream)
        busy, gone, patient = Client("/busy"), Client("/gone"), Client("/patient")
        waiting = [asyncio.create_task(c.ask(application)) for c in (busy, gone, patient)]
        await until(lambda: len(upstream.asked) == 1)
        gone.go_away()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        upstream.may_answer.set()
        await asyncio.wait(waiting)
        assert [client.status for client in (busy, gone, patient)] == [200, None, 200]

    asyncio.run(scenario())
    assert [environ["PATH_INFO"] for environ in upstream.asked] == ["/busy", "/patient"]


def test_a_request_that_is_being_answered_keeps_its_place_when_its_client_goes_away() -> None:
    upstream = Upstream()
    upstream.may_answer.clear()

    async def scenario() -> None:
        application = serving(upstream, threads=1, queue=1)
        first, second = Client("/first"), Client("/second", address="192.0.2.1")
        waiting = [asyncio.create_task(c.ask(application)) for c in (first, second)]
        await until(lambda: len(upstream.asked) == 1)
        first.go_away()
        assert (await Client(API).ask(application)).status == 503
        upstream.may_answer.set()
        await asyncio.wait(waiting)
        assert second.status == 200

    asyncio.run(scenario())


# What one client has of the threads

SLOW, FAST = "?slow", "?fast"
SCHEMES = ("Bearer ", "bearer   ", "BEARER ")


def bearer(token: str, scheme: str = "Bearer ") -> Headers:
    return ((b"authorization", f"{scheme}{token}".encode()),)


def session(name: str) -> Headers:
    return ((b"cookie", f"a=b; sessionid={name}".encode()),)


ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
ONE_CLIENT: dict[str, Callable[[str], list[Client]]] = {
    "a token from several addresses": lambda query: [
        Client(API + query, headers=bearer("a"), address=address) for address in ADDRESSES
    ],
    "a token written in several ways": lambda query: [
        Client(API + query, headers=bearer("a", scheme))
        for scheme in ("Bearer ", "bearer   ", "B ")
    ],
    "a session from several addresses": lambda query: [
        Client(f"/admin/{query}", headers=session("a"), address=address) for address in ADDRESSES
    ],
    "a session with tokens that its pages do not read": lambda query: [
        Client(f"/admin/{query}", headers=(*session("a"), *bearer(token))) for token in "abc"
    ],
    "an address": lambda query: [Client(f"/{path}{query}") for path in "abc"],
}


@pytest.mark.parametrize("one", ONE_CLIENT.values(), ids=ONE_CLIENT)
def test_one_client_leaves_half_of_the_threads_and_of_the_queue_to_the_others(
    one: Callable[[str], list[Client]],
) -> None:
    upstream, others = Upstream(), Upstream()
    upstream.may_answer.clear()

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        answer = upstream if environ["QUERY_STRING"] == "slow" else others
        return answer(environ, start_response)

    async def scenario() -> None:
        application = serving(wsgi, threads=4, queue=8)
        slow = [*one(SLOW), *one(SLOW)]  # half of 4 threads, and half of a queue of 8
        waiting = [asyncio.create_task(client.ask(application)) for client in slow]
        await until(lambda: len(upstream.asked) == 2)
        assert [(await client.ask(application)).status for client in one(FAST)] == [503] * 3
        fast = [
            Client(API + FAST, headers=bearer("b")),
            Client(f"/admin/{FAST}", headers=session("b")),
            Client(f"/{FAST}", address="192.0.2.9"),
        ]
        for client in fast:
            await asyncio.wait_for(client.ask(application), 20)
        assert [client.status for client in fast] == [200] * 3
        assert len(upstream.asked) == 2
        upstream.may_answer.set()
        await asyncio.wait(waiting)
        assert [client.status for client in slow] == [200] * 6
        assert (await one(FAST)[0].ask(application)).status == 200

    try:
        asyncio.run(scenario())
    finally:
        upstream.may_answer.set()
