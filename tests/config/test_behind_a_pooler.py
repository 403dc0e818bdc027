"""A worker writes, and the web server reads, through a PgBouncer in transaction mode."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from celery import Celery

from config import environment
from tests import projects
from tests.config.pooler import pgbouncer
from tests.projects import Service, query
from tests.waiting import eventually

pytestmark = pytest.mark.slow

RUNS = 60
POOL = 2
"""The connections to Postgres. The worker and its children alone have three."""
ON_SERVER = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid()
"""


@pytest.fixture
def database() -> Iterator[str]:
    with projects.database() as url:
        yield url


def test_a_worker_writes_and_the_web_server_reads_through_a_pooler(
    tmp_path: Path, database: str, free_port: str
) -> None:
    name, user = (environment.database(database)[key] for key in ("NAME", "USER"))
    broker, data = projects.broker(), str(tmp_path / "var")
    direct = Service(tmp_path, database, broker, DATA_DIR=data)
    direct.run("migrate", "--verbosity", "0")
    token = direct.run("create_token", "reader", "--create-user")
    query(
        database,
        f"ALTER ROLE {user} IN DATABASE {name} SET search_path = systemtasks_service, public",
    )
    app = Celery("pooled", broker=broker, set_as_current=False)
    app.conf.task_default_queue = "systemtasks"

    with pgbouncer(database, tmp_path, f"default_pool_size = {POOL}") as pooled:
        ours = Service(
            tmp_path, pooled, broker, DATA_DIR=data, PREPARED_STATEMENTS="false", WEB_WORKERS="1"
        )
        worker = ("celery", "--app", "config", "worker", "--include", "tests.tasks")
        options = ("--concurrency", "2", "--loglevel", "INFO")
        web = ("config.web", "--port", free_port)

        def ask(path: str) -> Any:
            url = f"http://127.0.0.1:{free_port}/api/v3/events/{path}"
            request = Request(url, headers={"Authorization": f"Bearer {token}"})
            with urlopen(request, timeout=60) as answer:
                return json.load(answer)

        def ended() -> bool:
            found = ask("task_runs/?state=success&page_size=1")
            return bool(found["pagination"]["count"] == RUNS)

        with (
            ours.started(*worker, *options, until=" ready.") as working,
            ours.started(*web, until="Started worker-1") as serving,
        ):
            sent = [app.send_task("tests.succeed", (number,)).id for number in range(RUNS)]
            assert eventually(ended), working.log.read_text()
            assert query(database, ON_SERVER)[0][0] <= POOL
            [run] = ask(f"task_runs/?celery_id={sent[0]}")["results"]
            assert ask(f"task_runs/{run['id']}/")["args"] == [0]

            # Its end is not notified, and is found all the same.
            slow = app.send_task("tests.sleep_in_a_coroutine", (3,)).id
            found: list[Any] = []

            def begun() -> bool:
                found[:] = ask(f"task_runs/?celery_id={slow}")["results"]
                return bool(found)

            assert eventually(begun)
            began = time.monotonic()
            assert ask(f"task_runs/{found[0]['id']}/?wait=30")["state"] == "success"
            assert time.monotonic() - began < 15
        logs = working.log.read_text() + serving.log.read_text()
        assert "Traceback" not in logs, logs
        assert "Task runs wait" not in logs
