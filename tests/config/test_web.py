"""The web server, as `make up` starts it, with clients that keep it waiting."""

import http.client
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from django.db import connection

from systemtasks.models import TaskRun
from systemtasks.states import State
from tests import factories, processes
from tests.waiting import eventually
from tests.web import Web

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

LIVE = "/-/health/live/"
READY = "/-/health/ready/"
TASKS = "/api/v3/events/system_tasks/"
RUNS = "/api/v3/events/task_runs/"
LARGE_FILE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
PATIENT = {"WEB_HEADER_SECONDS": "60", "WEB_BODY_SECONDS": "600", "WEB_SEND_SECONDS": "600"}
STRICT = {"WEB_HEADER_SECONDS": "1", "WEB_BODY_SECONDS": "1", "WEB_SEND_SECONDS": "1"}
IDLE = 1500

Held = list[socket.socket]
Attack = Callable[[int], Held]


@pytest.fixture(autouse=True, scope="module")
def _files_enough() -> Iterator[None]:
    """Raise the limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * IDLE
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"only {hard} files may be open here")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def patient(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield a server with deadlines that are longer than any test."""
    with Web(tmp_path_factory.mktemp("web") / "log", **PATIENT) as web:
        yield web
        processes.kill(web.process)  # it would wait for unfinished requests of the tests


@pytest.fixture(scope="module")
def strict(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield a server with short deadlines."""
    with Web(tmp_path_factory.mktemp("web") / "log", **STRICT) as web:
        yield web


@pytest.fixture
def authorization() -> str:
    return f"Bearer {factories.token(factories.user('reader', 'view', 'view_taskrun'))}"


def get(
    web: Web, path: str, authorization: str = "", method: str = "GET"
) -> tuple[int, Any, bytes]:
    """Return the status, the headers and the body of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)) as client:
        client.request(method, path, headers={"Authorization": authorization})
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()


def open_connection(port: int, sent: bytes = b"", receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(30)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


def head(*headers: str, target: str = "POST /admin/login/") -> bytes:
    """Return the beginning of a request. Because of its CSRF token, Django reads its body."""
    cookie = f"Cookie: csrftoken={'a' * 32}"
    form = "Content-Type: application/x-www-form-urlencoded"
    lines = (f"{target} HTTP/1.1", "Host: 127.0.0.1", cookie, form, *headers)
    return "\r\n".join((*lines, "", "")).encode()


# The attacks; each returns the connections that it holds.


def silent_bodies(number: int) -> Attack:
    request = head("Content-Length: 1000")
    return lambda port: [open_connection(port, request) for _ in range(number)]


def trickled_headers(port: int) -> Held:
    held = [open_connection(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n") for _ in range(16)]
    return trickling(held, b"X-A: b\r\n")


def trickled_bodies(port: int) -> Held:
    return trickling(silent_bodies(16)(port), b"a")


def endless_chunks(port: int) -> Held:
    request = head("Transfer-Encoding: chunked")
    return trickling([open_connection(port, request) for _ in range(16)], b"1\r\na\r\n")


def idle_connections(port: int) -> Held:
    return [open_connection(port) for _ in range(IDLE)]


def idle_connections_after_an_answer(port: int) -> Held:
    held = [open_connection(port, head(target=f"GET {LIVE}")) for _ in range(IDLE)]
    for client in held:
        assert client.recv(1000).startswith(b"HTTP/1.1 204")
    return held


def unread_answers(port: int) -> Held:
    """Connect clients that request more than the kernel buffers, and read nothing."""
    request = head(target=f"GET {LARGE_FILE}") * 8
    return [open_connection(port, request, receive_buffer=2048) for _ in range(16)]


def trickling(held: Held, data: bytes) -> Held:
    """Send the data byte by byte, over and over, until the connections are closed."""

    def send() -> None:
        left, sent = list(held), 0
        while left:
            for client in list(left):
                try:
                    client.send(data[sent % len(data) :][:1])
                except OSError:
                    left.remove(client)
            sent += 1
            time.sleep(0.1)  # the attack's own pace, not what a test waits for

    threading.Thread(target=send, daemon=True).start()
    return held


ATTACKS = {
    "4 silent bodies": silent_bodies(4),
    "16 silent bodies": silent_bodies(16),
    "64 silent bodies": silent_bodies(64),
    "trickled headers": trickled_headers,
    "trickled bodies": trickled_bodies,
    "endless chunks": endless_chunks,
    "idle connections": idle_connections,
    "idle connections after an answer": idle_connections_after_an_answer,
    "unread answers": unread_answers,
}


@contextmanager
def holding(attack: Attack, web: Web) -> Iterator[Held]:
    """Keep the connections of an attack open until the block ends."""
    held = attack(web.port)
    try:
        yield held
    finally:
        for client in held:
            client.close()


def connections(web: Web) -> int:
    """Return the number of connections that the server's processes have to clients."""
    server = psutil.Process(web.process.pid)
    return sum(
        found.laddr.port == web.port and found.status == psutil.CONN_ESTABLISHED
        for process in (server, *server.children(recursive=True))
        for found in process.net_connections("tcp")
    )


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_others_are_answered_meanwhile(patient: Web, authorization: str, attack: Attack) -> None:
    with holding(attack, patient) as held:
        assert eventually(lambda: connections(patient) >= len(held))
        for path, status in ((LIVE, 204), (READY, 204), (TASKS, 200)):
            assert get(patient, path, authorization)[0] == status
        assert connections(patient) >= len(held)
    assert eventually(lambda: connections(patient) == 0)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_their_connections_are_ended(strict: Web, attack: Attack) -> None:
    with holding(attack, strict):
        assert get(strict, LIVE)[0] == 204  # so the connections before it have been accepted
        assert eventually(lambda: connections(strict) == 0)


def answer_to(web: Web, sent: bytes) -> tuple[int, Any]:
    """Send this, and return the status and the JSON of the answer. No other answer may follow."""
    with open_connection(web.port, sent) as client, client.makefile("rb") as received:
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read()
        assert received.read() == b""
    return answer.status, orjson.loads(body)


def test_a_body_that_does_not_come_is_408_in_the_apis_own_form(strict: Web) -> None:
    status, body = answer_to(strict, head("Content-Length: 9", target=f"POST {TASKS}"))
    assert (status, body["code"]) == (408, "request_timeout")


@pytest.mark.parametrize(
    "rest",
    [
        head("Content-Length: 1048577", "Expect: 100-continue", target=f"POST {TASKS}"),
        head("Transfer-Encoding: chunked", target=f"POST {TASKS}")
        + (b"40000\r\n" + b"a" * 0x40000 + b"\r\n") * 4
        + b"1\r\na\r\n",
    ],
    ids=["length", "chunks"],
)
def test_a_body_that_is_too_large_is_413_in_the_apis_own_form(patient: Web, rest: bytes) -> None:
    status, body = answer_to(patient, rest)
    assert (status, body["code"]) == (413, "content_too_large")


def test_a_body_comes_with_a_length_in_chunks_or_once_it_is_asked_for(patient: Web) -> None:
    form = b"username=a&password=b&csrfmiddlewaretoken=" + b"a" * 32
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    length = f"Content-Length: {len(form)}"
    for sent in (
        head(length) + form,
        head("Transfer-Encoding: chunked") + chunks,
        head(length, "Expect: 100-continue") + form,
    ):
        with open_connection(patient.port, sent) as client:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.status == 200
            assert b"Please enter the correct username and password" in answer.read()


def test_a_head_has_the_headers_of_a_get_and_no_body(patient: Web, authorization: str) -> None:
    _, of_get, body = get(patient, TASKS, authorization)
    status, of_head, nothing = get(patient, TASKS, authorization, method="HEAD")
    assert (status, nothing) == (200, b"")
    assert of_head["Content-Length"] == of_get["Content-Length"] == str(len(body))
    assert of_head["ETag"] == of_get["ETag"]


# The threads, and the end


@pytest.fixture
def run() -> TaskRun:
    """Return a run that is in progress."""
    return factories.task_run(
        factories.system_task(), state="running", status="unknown", finish_timestamp=None
    )


def end(run: TaskRun) -> None:
    TaskRun.objects.filter(pk=run.pk).update(
        state=State.SUCCESS, finish_timestamp=run.start_timestamp
    )


@contextmanager
def waiting_for(run: TaskRun, web: Web, authorization: str, number: int = 1) -> Iterator[Held]:
    """Connect this many clients. Their requests are not answered before the run ends."""
    request = head(f"Authorization: {authorization}", target=f"GET {RUNS}{run.pk}/?wait=60")
    with ExitStack() as held:
        yield [held.enter_context(open_connection(web.port, request)) for _ in range(number)]


def status_for(client: socket.socket) -> int:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def listening_for_runs() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
        return bool(cursor.fetchone()[0])


def test_liveness_is_answered_and_a_bound_kept_while_every_thread_is_busy(
    tmp_path: Path, authorization: str, run: TaskRun
) -> None:
    few = {"WEB_THREADS": "1", "WEB_QUEUE": "6", "MOST_WAITING": "9"}
    with (
        Web(tmp_path / "log", **few) as web,
        waiting_for(run, web, authorization, number=5) as waiting,
    ):
        (refused,), _, _ = select.select(waiting, [], [], 30)
        answer = http.client.HTTPResponse(refused)
        answer.begin()
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert orjson.loads(answer.read())["code"] == "service_unavailable"
        assert get(web, LIVE)[0] == 204
        end(run)
        waiting.remove(refused)
        assert [status_for(client) for client in waiting] == [200] * 4


def test_a_stop_answers_what_has_been_asked(
    tmp_path: Path, authorization: str, run: TaskRun
) -> None:
    with (
        Web(tmp_path / "log") as web,
        waiting_for(run, web, authorization) as (client,),
        holding(idle_connections, web),
    ):
        assert eventually(listening_for_runs)
        web.process.terminate()
        assert eventually(lambda: not web.is_listening())
        end(run)
        assert status_for(client) == 200
        assert web.process.wait(30) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_keep_it_from_ending(tmp_path: Path, second: int) -> None:
    with Web(tmp_path / "log") as web:
        assert get(web, LIVE)[0] == 204
        web.process.terminate()
        web.process.send_signal(second)
        assert web.process.wait(30) in (0, -second)


def test_a_signal_while_it_starts_ends_it(tmp_path: Path) -> None:
    web = Web(tmp_path / "log", WEB_WORKERS="2")
    web.start()
    try:
        assert eventually(lambda: len(psutil.Process(web.process.pid).children()) == 2)
        web.process.terminate()
        web.process.wait(60)
    finally:
        processes.kill(web.process)


def test_a_worker_that_is_killed_has_a_successor(tmp_path: Path) -> None:
    with Web(tmp_path / "log") as web:
        (worker,) = psutil.Process(web.process.pid).children()
        worker.kill()
        assert eventually(lambda: not worker.is_running() and web.is_listening())
        assert get(web, LIVE)[0] == 204
