"""A web server reads a replica: a standby of Postgres's own streaming replication."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from celery import Celery

from config.embedded import Services
from config.embedded.servers import Postgres
from tests import projects
from tests.projects import Service, query
from tests.waiting import eventually

pytestmark = pytest.mark.slow

WAL = "SELECT pg_current_wal_lsn()::text"
REPLAYED = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"


@contextmanager
def running(server: Postgres) -> Iterator[str]:
    """Run a Postgres, and yield the URL of its database."""
    process = server.start()
    try:
        assert eventually(server.answers, 60)
        yield server.services.database_url()
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(server.services.run, ignore_errors=True)


def copy(primary: Postgres, folder: Path) -> Postgres:
    """Make a standby of a running Postgres, with the same accounts and passwords."""
    folder.mkdir()
    shutil.copy2(primary.services.data / "secret_key", folder)
    standby = Postgres(Services(folder, postgres=True, valkey=False))
    assert standby.services.password() == primary.services.password()
    standby.account.own(standby.services.run)
    program, run = standby.binaries / "pg_basebackup", primary.services.run
    standby.account.own(standby.data)
    command = standby.account.command(program, standby.data, run)
    command += ["-D", str(standby.data), "-h", str(run), "-U", "systemtasks", "-R", "-c", "fast"]
    given = {**os.environ, "PGPASSWORD": primary.services.password()}
    subprocess.run(command, cwd="/", env=given, check=True, capture_output=True)
    return standby


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[str, str, Service]]:
    """Yield the URLs of a primary and of its standby, and the service over the primary."""
    primary = Postgres(Services(tmp_path / "primary", postgres=True, valkey=False))
    primary.services.data.mkdir()
    primary.prepare()
    with running(primary) as url:
        primary.after_start()
        ours = Service(tmp_path, url, projects.broker(), DATA_DIR=str(tmp_path / "var"))
        ours.run("migrate", "--verbosity", "0")
        with running(copy(primary, tmp_path / "standby")) as replica:
            yield url, replica, ours


def caught_up(url: str, replica: str) -> bool:
    [(written,)] = query(url, WAL)
    return eventually(lambda: bool(query(replica, REPLAYED, written)[0][0]))


def asker(port: str, token: str) -> Callable[..., tuple[int, Any]]:
    def ask(path: str, method: str = "GET") -> tuple[int, Any]:
        url = f"http://127.0.0.1:{port}/api/v3/events/{path}"
        request = Request(url, headers={"Authorization": f"Bearer {token}"}, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except HTTPError as error:
            return error.code, error.read().decode()

    return ask


def test_a_web_server_reads_a_replica_and_sends_tasks(
    tmp_path: Path, databases: tuple[str, str, Service], free_port: str
) -> None:
    primary, replica, ours = databases
    token = ours.run("create_token", "reader", "--create-user")
    query(primary, "UPDATE systemtasks_service.auth_user SET is_superuser = true")
    app = Celery("replica", broker=ours.environment["BROKER_URL"], set_as_current=False)
    app.conf.task_default_queue = "systemtasks"
    worker = ("celery", "--app", "config", "worker", "--include", "tests.tasks", "--pool", "solo")
    ended = "SELECT count(*) FROM systemtasks_taskrun WHERE state = 'success'"
    with ours.started(*worker, "--loglevel", "INFO", until=" ready."):
        sent = [app.send_task("tests.succeed", (number,)).id for number in range(3)]
        assert eventually(lambda: query(primary, ended)[0][0] == 3)
    assert caught_up(primary, replica)

    reading = Service(
        tmp_path, replica, ours.environment["BROKER_URL"], DATA_DIR=str(tmp_path / "var"),
        WEB_WORKERS="1",
    )  # fmt: skip
    with reading.started("config.web", "--port", free_port, until="Started worker-1") as web:
        ask = asker(free_port, token)
        status, runs = ask("task_runs/")
        assert (status, runs["pagination"]["count"]) == (200, 3)
        assert {run["celery_id"] for run in runs["results"]} == {*sent}
        [run, *_] = runs["results"]
        assert ask(f"task_runs/{run['id']}/")[0] == 200
        assert ask(f"task_runs/{run['id']}/?wait=5")[0] == 200
        assert ask("system_tasks/?search=succeed")[0] == 200
        assert ask("task_runs/summary/")[0] == 200
        # To send a task needs the broker alone.
        assert ask(f"system_tasks/{run['system_task']}/run/", "POST")[0] == 204
        with urlopen(f"http://127.0.0.1:{free_port}/-/health/ready/", timeout=30) as answer:
            assert answer.status == 204
    log = web.log.read_text()
    assert "cannot execute LISTEN during recovery" in log
    assert "Traceback" not in log, log

    with ours.started(*worker, "--loglevel", "INFO", until=" ready."):
        assert eventually(lambda: query(primary, ended)[0][0] == 4)
