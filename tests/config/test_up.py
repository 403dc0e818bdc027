"""`make up` as its user sees it: its output, the state that it leaves, and its errors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.config.test_embedded import processes
from tests.processes import ROOT
from tests.waiting import eventually

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
ANSWER = re.compile(r"^{\n.*?^}$", flags=re.M | re.S)
"""The answer that README.md prints."""
TASK_URL = re.compile(r"curl -H 'Authorization: Bearer (\S+)' (http://\S+)")


def without_numbers(value: object) -> object:
    """Return a JSON value with all numbers alike, those in texts too, and its keys in order."""
    match value:
        case dict():
            return [(key, without_numbers(inner)) for key, inner in value.items()]
        case list():
            return [without_numbers(inner) for inner in value]
        case str():
            return re.sub(r"\d+", "0", value)
        case bool():
            return value
        case int() | float():
            return type(value)
    return value


class Up:
    """A running `python -m config.up`."""

    def __init__(self, data: Path, port: int) -> None:
        self.log = data.parent / "up.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.up", "--port", str(port)],
                cwd=ROOT,
                env=environment(data),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def is_ready(self) -> bool:
        return eventually(
            lambda: "Ctrl-C stops everything" in self.said or self.process.poll() is not None, 60
        ) and (self.process.poll() is None)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def environment(data: Path, **variables: str) -> dict[str, str]:
    ours = {"DATABASE_URL", "BROKER_URL", "SECRET_KEY", "ALLOWED_HOSTS", "DJANGO_SETTINGS_MODULE"}
    others = {name: value for name, value in os.environ.items() if name not in ours}
    return {**others, "DATA_DIR": str(data), **variables}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "var"
    for process in processes(tmp_path):
        process.kill()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(data: Path, port: int, **variables: str) -> str:
    failed = subprocess.run(
        [sys.executable, "-m", "config.up", "--port", str(port)],
        cwd=ROOT,
        env=environment(data, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert len(failed.stderr.splitlines()) == 1
    return failed.stderr


@contextmanager
def hanging_server(up: Up) -> Iterator[psutil.Process]:
    """Stop the web server, so that it does not answer any request, and yield its process."""
    children = psutil.Process(up.process.pid).children()
    (server,) = (child for child in children if "config.web" in child.cmdline())
    server.suspend()
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def silent_clients(port: int) -> Iterator[None]:
    """Connect clients that begin a header or a body and then send nothing more."""
    begin = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    cookie = b"Cookie: csrftoken=" + 32 * b"a" + b"\r\n"
    with ExitStack() as clients:
        for sent in (begin, begin + cookie + b"\r\n"):
            client = socket.create_connection(("127.0.0.1", port))
            clients.enter_context(closing(client)).sendall(sent)
        yield


def test_second_signal_at_any_moment_leaves_nothing_and_no_traceback(data: Path, port: int) -> None:
    up = Up(data, port)
    assert up.is_ready(), up.said

    for number in 10 * (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        up.process.send_signal(number)

    assert up.process.wait(30) == 0, up.said
    assert "\nTraceback" not in up.said  # a worker's would come after its name
    assert eventually(lambda: processes(data) == [])


def test_newcomer_sees_a_record_and_ctrl_c_leaves_nothing(data: Path, port: int) -> None:
    up = Up(data, port)
    assert up.is_ready(), up.said
    printed = TASK_URL.search(up.said)
    assert printed, up.said
    token, url = printed.groups()
    assert re.search(r"/admin/ +admin, password \S+\n", up.said)

    request = Request(url, headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=10) as response:
        task = json.load(response)
    assert task["name"] == "demo.clean_sessions"
    assert task["status"] == "successful"
    assert urlsplit(url).path in README
    printed_there = json.loads(ANSWER.findall(README)[0])
    assert without_numbers(task) == without_numbers(printed_there)

    assert "already runs here" in refused(data, port)
    assert up.interrupt() == 0, up.said
    assert "WorkerLostError" not in up.said
    assert "killed" not in up.said
    assert eventually(lambda: processes(data) == [])

    again = Up(data, port)
    assert again.is_ready(), again.said
    assert token not in again.said
    assert "password" not in again.said
    assert "Bearer $TOKEN" in again.said
    with silent_clients(port):
        assert again.interrupt() == 0, again.said
    assert "killed" not in again.said
    assert eventually(lambda: processes(data) == [])


def test_server_that_does_not_end_is_killed(data: Path, port: int) -> None:
    up = Up(data, port)
    assert up.is_ready(), up.said

    with hanging_server(up) as server:
        assert up.interrupt() == 0, up.said

        assert not server.is_running()
    assert "it is killed now" in up.said
    assert eventually(lambda: processes(data) == []), processes(data)


def test_killed_supervisor_leaves_no_server_that_does_not_end(data: Path, port: int) -> None:
    up = Up(data, port)
    assert up.is_ready(), up.said

    with hanging_server(up) as server:
        up.process.kill()
        up.process.wait()

        assert eventually(lambda: not server.is_running())
    assert eventually(lambda: processes(data) == []), processes(data)


def test_killed_supervisor_leaves_nothing(data: Path, port: int) -> None:
    up = Up(data, port)
    assert up.is_ready(), up.said

    up.process.kill()
    up.process.wait()

    assert eventually(lambda: processes(data) == [], 30), processes(data)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_port_in_use_is_one_sentence(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert f"port {port} is in use" in refused(data, port)


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, port: int) -> None:
    (tmp_path / "file").write_text("")

    assert "no permission to write" in refused(tmp_path / "file" / "var", port)


def test_broker_that_is_away_is_one_sentence(data: Path, port: int) -> None:
    assert "the broker cannot be used" in refused(data, port, BROKER_URL="redis://127.0.0.1:1/0")


def test_database_that_is_away_is_one_sentence(data: Path, port: int) -> None:
    said = refused(
        data,
        port,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
    )

    assert "the database cannot be used" in said
