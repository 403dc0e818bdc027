"""A project with RabbitMQ: "run again" sends to its queues, in every way to declare them."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from amqp.exceptions import NotFound
from kombu import Exchange

from tests import processes, projects
from tests.projects import Project, Service, query
from tests.waiting import eventually

pytestmark = pytest.mark.slow

TASK = "project.greet"
FIRST = """
SELECT uuid, name FROM systemtasks_systemtask JOIN systemtasks_taskrun ON system_task_id = uuid
WHERE state = 'success' LIMIT 1
"""
RUNS_OF = """
SELECT count(*) FROM systemtasks_taskrun
WHERE system_task_id = %s AND state = 'success' AND queue = 'systemtasks'
"""
ENDED = "SELECT count(*) FROM systemtasks_taskrun WHERE state = 'success' AND queue = %s"
RUN_AGAIN = """
from systemtasks.models import SystemTask
from systemtasks.rerun import rerun
print(rerun(SystemTask(name={name!r}, uuid=SystemTask.objects.get().uuid)))
"""


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Yield free ports."""
    with ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    yield ports


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """Run a RabbitMQ for the test, and yield its URL."""
    # Debian has a script of this name on PATH that starts another account's.
    server = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin") or shutil.which(
        "rabbitmq-server"
    )
    names = shutil.which("epmd")
    if server is None or names is None:
        pytest.skip("There is no rabbitmq-server")
    with free_ports(3) as (port, epmd_port, distribution_port):
        variables = {
            **os.environ,
            "HOME": str(tmp_path),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(tmp_path / "rabbitmq"),
            "RABBITMQ_LOG_BASE": str(tmp_path / "log"),
            "RABBITMQ_PID_FILE": str(tmp_path / "rabbitmq.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"),
        }
    log = tmp_path / "rabbitmq.log"
    # Before the server, which would start one that outlives it.
    daemon = processes.start([names], tmp_path / "epmd.log", variables)
    process = processes.start([server], log, variables)
    try:
        assert eventually(lambda: "Starting broker... completed" in log.read_text(), 120), (
            log.read_text()
        )
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        processes.stop(process)
        processes.stop(daemon)


def test_a_task_is_run_again_from_the_queue_that_the_project_has_declared(
    tmp_path: Path, broker: str
) -> None:
    with projects.database() as database:
        project = Project(tmp_path, database, broker)
        project.run("migrate", "--verbosity", "0")
        ours = Service(tmp_path, database, broker, WEB_ONLY="true")
        ours.run("migrate", "--verbosity", "0")

        def have_run(queue: str, times: int) -> bool:
            return query(database, ENDED, queue) == [(times,)]

        def run_again(name: str) -> projects.Ended:
            code = RUN_AGAIN.format(name=name)
            return ours.call("shell", "--no-imports", "--command", code)

        with project.worker("--queues", "quorum,priority"):
            for queue in ("quorum", "priority"):
                project.app.send_task(TASK, args=["Ada"], queue=queue, declare=[])
                assert eventually(lambda queue=queue: have_run(queue, 1))  # type: ignore[misc]
                again = run_again(TASK)
                assert again.returncode == 0, again.stderr
                assert eventually(lambda queue=queue: have_run(queue, 2))  # type: ignore[misc]
            assert "No worker knows this task" in run_again("project.gone").stderr


def test_a_task_is_run_again_by_its_exchange_with_its_headers_whatever_the_routing_key_is(
    tmp_path: Path, broker: str
) -> None:
    columns = "queue, sent_options FROM systemtasks_taskrun WHERE state = 'success' ORDER BY id"
    with projects.database() as database:
        project = Project(tmp_path, database, broker)
        project.run("migrate", "--verbosity", "0")
        ours = Service(tmp_path, database, broker, WEB_ONLY="true")
        ours.run("migrate", "--verbosity", "0")
        feed: dict[str, Any] = {"exchange": "feeds", "routing_key": "feed.tsv", "declare": []}
        carried = {**feed, "headers": {"tenant": "acme"}, "priority": 3, "time_limit": 60}
        kept = {name: value for name, value in carried.items() if name != "declare"}

        def runs(times: int) -> list[tuple[Any, ...]]:
            assert eventually(lambda: len(query(database, f"SELECT {columns}")) >= times)
            return query(database, f"SELECT {columns}")

        with project.worker("--queues", "feeds"):
            project.app.send_task(TASK, args=["Ada"], **carried)
            assert runs(1) == [("feeds", kept)]
            again = ours.call("shell", "--no-imports", "--command", RUN_AGAIN.format(name=TASK))
            assert again.returncode == 0, again.stderr
            assert runs(2) == [("feeds", kept)] * 2

            # As RabbitMQ's delayed delivery has it.
            key = f"{'0.' * 27}1.feed.tsv"
            assert eventually(lambda: has_exchange(project, "celery_delayed_27"))
            sending: dict[str, Any] = {
                "exchange": "celery_delayed_27",
                "routing_key": key,
                "declare": [],
            }
            project.app.send_task(TASK, args=["Ada"], **sending)
            *_, (queue, options) = runs(3)
            assert (queue, options["routing_key"]) == ("feeds", key)
            again = ours.call("shell", "--no-imports", "--command", RUN_AGAIN.format(name=TASK))
            assert again.returncode == 0, again.stderr
            *_, (queue, options) = runs(4)
            assert (queue, options.get("exchange")) == ("feeds", None)


def test_the_service_itself_runs_on_it_and_runs_a_task_again(
    tmp_path: Path, broker: str, free_port: str
) -> None:
    with projects.database() as database:
        service = Service(tmp_path, database, broker, DATA_DIR=str(tmp_path / "var"))
        with service.started(
            *("config.up", "--port", free_port), until="Ctrl-C stops everything"
        ) as up:
            [(task, name)] = query(database, FIRST)
            token = re.findall(r"Bearer (\S+)'", up.log.read_text())[0]
            url = f"http://127.0.0.1:{free_port}/api/v3/events/system_tasks/{task}/run/"
            request = Request(url, method="POST", headers={"Authorization": f"Bearer {token}"})
            with urlopen(request, timeout=30) as answer:
                assert answer.status == 204
            assert eventually(lambda: query(database, RUNS_OF, task)[0][0] >= 2), up.log.read_text()
    assert name.startswith("demo.")
    assert "amqp.exceptions" not in up.log.read_text()


def has_exchange(project: Project, name: str) -> bool:
    with project.app.connection_for_write() as connection:
        try:
            Exchange(name, channel=connection.channel(), passive=True).declare()
        except NotFound:
            return False
    return True
