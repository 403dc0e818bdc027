"""On one broker, the service and a project do not receive each other's messages."""

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from config.celery import app
from tests import projects
from tests.projects import Project, Running, Service, query
from tests.waiting import eventually

pytestmark = pytest.mark.slow

TASK = "project.greet"
OWN_RUNS = """
SELECT count(*) FROM systemtasks_taskrun
WHERE state = 'success' AND sender ~ '^celerybeat@' AND sent_timestamp > to_timestamp(%s)
"""


class Shared(NamedTuple):
    """One broker and its users."""

    broker: str
    project: Project
    service: Service
    up: Running

    @property
    def queue(self) -> int:
        """Return the number of messages that wait in the project's queue."""
        return int(projects.valkey(self.broker).llen("celery"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, free_port: str) -> Iterator[Shared]:
    """Yield the service as `make up` starts it, and a project that has no worker yet."""
    folder = tmp_path_factory.mktemp("shared")
    with projects.database() as theirs, projects.database() as database:
        broker = projects.broker()
        project = Project(folder, theirs, broker)
        project.run("migrate", "--verbosity", "0")
        service = Service(folder, database, broker, DATA_DIR=str(folder / "var"))
        command = ("config.up", "--port", free_port)
        with service.started(*command, until="Ctrl-C stops everything") as up:
            yield Shared(broker, project, service, up)


def test_a_projects_tasks_are_left_to_its_own_worker(shared: Shared) -> None:
    sent = time.time()
    for number in range(100):
        shared.project.app.send_task(TASK, args=[f"guest {number}"])

    def have_run() -> bool:
        [(count,)] = query(shared.service.environment["DATABASE_URL"], OWN_RUNS, sent)
        return bool(count)

    assert eventually(have_run), shared.up.log.read_text()
    assert shared.queue == 100
    with shared.project.worker() as worker:
        assert eventually(lambda: worker.log.read_text().count(" succeeded in ") == 100)

    database = shared.service.environment["DATABASE_URL"]
    assert query(database, "SELECT name FROM systemtasks_systemtask WHERE name !~ '^demo'") == []
    assert "unregistered" not in shared.up.log.read_text()


def test_each_is_asked_and_stopped_by_its_own_commands(shared: Shared) -> None:
    theirs = shared.project.app.control
    with shared.project.worker() as worker, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert eventually(lambda: nodes(theirs.inspect().ping()) == ["celery"])
        assert eventually(lambda: nodes(ping(shared.service)) == ["systemtasks"])
        theirs.broadcast("shutdown")
        assert eventually(lambda: worker.process.poll() is not None)
        assert eventually(lambda: nodes(ping(shared.service)) == ["systemtasks"])


def ping(service: Service) -> Any:
    """Return the output of the service's own `celery inspect ping`."""
    command = ("-m", "celery", "--app", "config", "inspect", "ping", "--json", "--timeout", "3")
    asked = service.call_python(*command)
    return json.loads(asked.stdout) if asked.returncode == 0 else {}


def nodes(answers: Any) -> list[str]:
    """Return the names of the nodes that answered in time, without their host."""
    return sorted(name.partition("@")[0] for name in answers or {})


def test_events_of_one_are_not_heard_by_the_other(shared: Shared) -> None:
    heard: list[int] = []
    with shared.project.worker() as worker, shared.project.app.connection_for_read() as connection:
        receiver = shared.project.app.events.Receiver(
            connection, handlers={"*": lambda event: heard.append(event["pid"])}
        )
        # A worker's heart beats every two seconds.
        while len(heard) < 6:
            receiver.capture(limit=1, timeout=30)
    assert {*heard} == {worker.process.pid}


def test_message_that_a_project_has_taken_is_never_given_back(tmp_path: Path) -> None:
    with projects.database() as database:
        broker = projects.broker()
        project = Project(tmp_path, database, broker)
        project.take_for_hours(TASK)
        service = Service(tmp_path, database, broker, DATA_DIR=str(tmp_path / "var"))
        service.run("migrate", "--verbosity", "0")
        command = ("celery", "--app", "config", "worker", "--pool", "solo", "--loglevel", "INFO")
        with service.started(*command, until=" ready."):
            # It has looked for its own when it takes the first message.
            with app.connection_for_write(url=broker) as connection:
                app.send_task("celery.ping", connection=connection)
            assert eventually(lambda: not projects.valkey(broker).exists("systemtasks"))
        assert project.taken() == (0, 1)
