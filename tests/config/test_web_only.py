"""WEB_ONLY: the service for a project that has its own users, workers and broker."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from systemtasks.ids import system_task_uuid
from tests import projects
from tests.projects import Project, Service, everything, query
from tests.waiting import eventually

pytestmark = pytest.mark.slow

TASK = "project.greet"
USERS = {"custom": "accounts_user", "standard": "auth_user"}
RUNS = """
SELECT run.state, run.queue, run.args::text, run.worker
FROM systemtasks_taskrun AS run JOIN systemtasks_systemtask AS task ON uuid = system_task_id
WHERE name = %s ORDER BY coalesce(run.sent_timestamp, run.start_timestamp)
"""
RECORD = """
WITH task AS (
    INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp,
        finish_timestamp, duration, status, messages)
    VALUES (%s, %s, '', '', now(), now(), 0, 'successful', '[]')
    ON CONFLICT (uuid) DO UPDATE SET status = 'successful' RETURNING uuid
)
INSERT INTO systemtasks_taskrun (id, system_task_id, celery_id, attempt, state, status, queue,
    worker, start_timestamp, finish_timestamp, args, kwargs, arguments_intact, sent_options,
    exception, messages, sender, parent_id, root_id, context, sort_timestamp)
SELECT gen_random_uuid(), uuid, gen_random_uuid(), 1, 'success', 'successful', %s, '',
    now(), now(), '[]', '{}', true, '{}', '', '[]', '', '', '', '{}', now()
FROM task
"""


class Pages:
    """The service's pages and API, as `make up` serves them."""

    def __init__(self, log: Path) -> None:
        said = log.read_text()
        self.url, self.password, self.token = (
            found[1]
            for pattern in (r"runs at (\S+)", r"admin, password (\S+)", r"Bearer ([^']+)'")
            if (found := re.search(pattern, said))
        )

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """Return the status and the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = Request(f"{self.url}/api/v3/events/{path}", headers=headers, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except HTTPError as error:
            return error.code, json.load(error)

    def run_again(self, name: str = TASK) -> tuple[int, Any]:
        return self.ask(f"system_tasks/{system_task_uuid(name)}/run/", "POST")


@pytest.fixture
def database() -> Iterator[str]:
    with projects.database() as url:
        yield url


def service(folder: Path, database: str, broker: str, **variables: str) -> Service:
    variables = {"WEB_ONLY": "true", "DATA_DIR": str(folder / "var"), **variables}
    return Service(folder, database, broker, **variables)


def migrate(project: Project) -> None:
    """Set the project up, with a user."""
    project.run("migrate", "--verbosity", "0")
    flag = "--email" if project.environment["CUSTOM_USERS"] else "--username"
    words = ("createsuperuser", "--noinput", flag, "ada@project.example")
    others = ("--email", "ada@project.example") if flag == "--username" else ()
    project.run(*words, *others, DJANGO_SUPERUSER_PASSWORD="the-projects")


def of_project(database: str) -> dict[str, Any]:
    """Return every row of the project's tables."""
    ours = ("systemtasks_service.", "public.systemtasks_")
    found = everything(database).items()
    return {table: rows for table, rows in found if not table.startswith(ours)}


def commands(process: int) -> list[str]:
    """Return the command lines of all processes that this one has started."""
    children = psutil.Process(process).children(recursive=True)
    return [" ".join(child.cmdline()) for child in children]


def invalid(sentence: str) -> dict[str, Any]:
    return {"non_field_errors": [sentence], "code": "invalid"}


def ended(database: str, count: int) -> list[Any]:
    """Wait until this many runs of the task have ended, and return them."""

    def runs() -> list[Any]:
        return [run for run in query(database, RUNS, TASK) if run[0] == "success"]

    assert eventually(lambda: len(runs()) == count), query(database, RUNS, TASK)
    return runs()


@pytest.mark.parametrize("first", ["project", "service"])
@pytest.mark.parametrize("users", USERS)
def test_a_projects_runs_are_shown_and_run_again_by_its_own_workers(
    tmp_path: Path, database: str, free_port: str, users: str, first: str
) -> None:
    broker = projects.broker()
    project = Project(tmp_path, database, broker, custom_users=users == "custom")
    ours = service(tmp_path, database, broker)
    if first == "service":
        ours.run("migrate", "--verbosity", "0")
    migrate(project)
    before = of_project(database)
    assert "ada@project.example" in str(before[f"public.{USERS[users]}"])

    with project.worker("--queues", "project,celery"):
        project.app.send_task(TASK, args=["Ada"], queue="project")
        ended(database, 1)
        with ours.started("config.up", "--port", free_port, until="Ctrl-C stops everything") as up:
            pages = Pages(up.log)
            assert not [command for command in commands(up.process.pid) if "celery" in command]
            status, tasks = pages.ask("system_tasks/")
            assert (status, [task["name"] for task in tasks["results"]]) == (200, [TASK])
            assert pages.run_again() == (204, None)
            again = ended(database, 2)[-1]

    state, queue, args, worker = again
    assert (state, queue, args) == ("success", "project", '["Ada"]')
    assert worker.startswith("celery@")
    assert of_project(database) == before
    assert [
        name for (name,) in query(database, "SELECT username FROM systemtasks_service.auth_user")
    ] == ["admin"]


@contextmanager
def serving(folder: Path, project: Project, port: str, **variables: str) -> Iterator[Pages]:
    """Set the project up, and yield the service's pages for it."""
    migrate(project)
    database, broker = (project.environment[name] for name in ("DATABASE_URL", "BROKER_URL"))
    ours = service(folder, database, broker, **variables)
    with ours.started("config.up", "--port", port, until="Ctrl-C stops everything") as up:
        yield Pages(up.log)


def record(database: str, name: str, queue: str) -> None:
    """Record a successful run of a task without arguments."""
    query(database, RECORD, system_task_uuid(name), name, queue)


def test_run_again_asks_and_reaches_no_worker_but_the_project_s(
    tmp_path: Path, database: str, free_port: str
) -> None:
    project = Project(tmp_path, database, projects.broker(), prefix="shop:")
    options = json.dumps({"global_keyprefix": "shop:"})
    with serving(tmp_path, project, free_port, BROKER_TRANSPORT_OPTIONS=options) as pages:
        record(database, "project.gone", "celery")
        record(database, TASK, "")
        assert pages.run_again() == (
            400,
            invalid("The queue of this task's last run is not on record."),
        )

        # No worker answers. The message waits for one, which then discards it.
        assert pages.run_again("project.gone") == (204, None)
        with project.worker() as worker:
            assert eventually(lambda: "unregistered task" in worker.log.read_text())
            unknown = invalid("No worker knows this task (any longer).")
            assert pages.run_again("project.gone") == (400, unknown)
            record(database, TASK, "celery")
            assert pages.run_again() == (204, None)
            assert eventually(lambda: " TypeError" in worker.log.read_text())  # no arguments


def test_message_that_a_project_has_taken_is_not_given_back_by_who_asks(
    tmp_path: Path, database: str, free_port: str
) -> None:
    project = Project(tmp_path, database, projects.broker())
    with serving(tmp_path, project, free_port) as pages:
        project.take_for_hours(TASK)
        record(database, TASK, "celery")
        assert pages.run_again() == (204, None)
    assert project.taken() == (1, 1)


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_worker_or_beat_is_refused(tmp_path: Path, program: str) -> None:
    ours = service(tmp_path, "postgresql://a@127.0.0.1:1/b", "redis://127.0.0.1:1")
    words = () if program == "worker" else ("--schedule", str(tmp_path / "schedule"))
    refused = ours.call_python("-m", "celery", "--app", "config", program, *words)
    assert refused.returncode == 1
    assert "System Tasks cannot start: WEB_ONLY is set" in refused.stderr.splitlines()[-1]
