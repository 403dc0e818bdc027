"""The embedded services are shared and durable, and end with their last user."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from config.embedded import Services
from tests.processes import ROOT
from tests.waiting import eventually

HOLD = """
import sys
from pathlib import Path
from config.embedded import Services

services = Services(Path(sys.argv[1]), postgres=True, valkey=True)
services.attach()
print("attached", flush=True)
sys.stdin.readline()
services.detach()
"""
RUN_SQL = """
import sys
from pathlib import Path
import psycopg
from config.embedded import Services

services = Services(Path(sys.argv[1]), postgres=True, valkey=True)
services.attach()
with psycopg.connect(services.database_url(), autocommit=True) as connection:
    cursor = connection.execute(sys.argv[2])
    print(cursor.fetchall() if cursor.description else "done")
services.detach()
"""
SET_KEY = """
import sys
from pathlib import Path
import redis
from config.embedded import Services

services = Services(Path(sys.argv[1]), postgres=True, valkey=True)
services.attach()
client = redis.Redis(unix_socket_path=str(services.valkey_socket))
print(client.execute_command(*sys.argv[2:]))
services.detach()
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "var"
    for process in processes(tmp_path):
        process.kill()


def processes(data: Path) -> list[psutil.Process]:
    """Return all processes that have this folder on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(data) in word for word in words) and process.pid != os.getpid():
            found.append(process)
    return found


def run(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Holder:
    """A process that is attached until it is told to leave."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(data)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def attached(self) -> bool:
        assert self.process.stdout
        return self.process.stdout.readline() == "attached\n"

    def leave(self) -> None:
        self.process.communicate("\n", timeout=60)


def server(data: Path, name: str) -> psutil.Process:
    return next(p for p in processes(data) if any(name in word for word in p.cmdline()[:1]))


def test_data_survives_a_restart_and_nothing_stays_behind(data: Path) -> None:
    run(RUN_SQL, str(data), "CREATE TABLE kept AS SELECT 42 AS answer")
    run(SET_KEY, str(data), "SET", "kept", "yes")
    assert processes(data) == []

    assert run(RUN_SQL, str(data), "SELECT answer FROM kept") == "[(42,)]"
    assert run(SET_KEY, str(data), "GET", "kept") == "b'yes'"
    assert processes(data) == []


def test_two_first_starts_at_once_share_one_server_until_the_last_leaves(data: Path) -> None:
    first, second = Holder(data), Holder(data)
    assert first.attached()
    assert second.attached()
    postgres = server(data, "postgres").pid

    first.leave()
    assert run(RUN_SQL, str(data), "SELECT 1") == "[(1,)]"
    assert server(data, "postgres").pid == postgres

    second.leave()
    assert processes(data) == []


def test_killed_holder_does_not_keep_the_services(data: Path) -> None:
    holder = Holder(data)
    assert holder.attached()

    holder.process.kill()
    holder.process.communicate()

    assert eventually(lambda: processes(data) == [])


def test_kill_of_everything_is_recovered_from(data: Path) -> None:
    run(RUN_SQL, str(data), "CREATE TABLE kept AS SELECT 42 AS answer")
    holder = Holder(data)
    assert holder.attached()

    for process in [*processes(data), psutil.Process(holder.process.pid)]:
        process.kill()
    holder.process.communicate()

    assert run(RUN_SQL, str(data), "SELECT answer FROM kept") == "[(42,)]"
    assert eventually(lambda: processes(data) == [])


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_services_end_with_the_process_that_keeps_them(data: Path) -> None:
    holder = Holder(data)
    assert holder.attached()

    (keeper,) = (p for p in processes(data) if "config.embedded.servers" in p.cmdline())
    keeper.kill()

    assert eventually(lambda: [p.pid for p in processes(data)] == [holder.process.pid])
    holder.leave()

    assert run(RUN_SQL, str(data), "SELECT 1") == "[(1,)]"


@pytest.mark.parametrize("name", ["postgres", "valkey-server"])
def test_killed_service_is_started_again(data: Path, name: str) -> None:
    holder = Holder(data)
    assert holder.attached()
    killed = server(data, name).pid

    os.kill(killed, signal.SIGKILL)

    assert eventually(
        lambda: any(
            name in word for p in processes(data) if p.pid != killed for word in p.cmdline()[:1]
        )
    )
    assert eventually(lambda: services_answer(data))
    holder.leave()
    assert processes(data) == []


def services_answer(data: Path) -> bool:
    try:
        return run(RUN_SQL, str(data), "SELECT 1") == "[(1,)]" and run(
            SET_KEY, str(data), "PING"
        ) in ("True", "b'PONG'")
    except subprocess.CalledProcessError:
        return False


def test_interrupted_first_start_begins_anew(data: Path) -> None:
    (data / "postgres.new").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("half")

    assert run(RUN_SQL, str(data), "SELECT 1") == "[(1,)]"


def test_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    data = tmp_path / ("long-" * 20) / "var"

    assert run(RUN_SQL, str(data), "SELECT 1") == "[(1,)]"


@pytest.mark.parametrize("kind", ["link", "open"])
def test_folder_of_somebody_else_for_the_sockets_stops_the_start(tmp_path: Path, kind: str) -> None:
    data = tmp_path / ("long-" * 20) / "var"
    sockets = Services(data, postgres=True, valkey=True).run
    assert sockets.parent == Path(tempfile.gettempdir())
    (tmp_path / "others").mkdir()
    if kind == "link":
        sockets.symlink_to(tmp_path / "others")
    else:
        sockets.mkdir()
        sockets.chmod(0o777)
    owner = (tmp_path / "others").stat().st_uid
    try:
        failed = subprocess.run(
            [sys.executable, "-c", HOLD, str(data)], cwd=ROOT, capture_output=True, text=True
        )
    finally:
        sockets.unlink() if sockets.is_symlink() else shutil.rmtree(sockets, ignore_errors=True)

    assert failed.returncode == 1
    assert f"{sockets} belongs to somebody else, or is open to others" in failed.stderr
    assert [*(tmp_path / "others").iterdir()] == []
    assert (tmp_path / "others").stat().st_uid == owner


def test_folder_that_only_its_owner_may_enter_works(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)

    assert run(RUN_SQL, str(private / "var"), "SELECT 1") == "[(1,)]"
    assert private.stat().st_mode & 0o777 == 0o700


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path / "file" / "var")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert str(tmp_path / "file" / "var") in failed.stderr
