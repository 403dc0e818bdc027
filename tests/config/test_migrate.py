"""`manage.py migrate`: what it creates, where, and its error if the role may not."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from systemtasks.ids import system_task_uuid
from tests import projects
from tests.config.roles import role
from tests.projects import Project, Service, everything, query

pytestmark = pytest.mark.slow

ADMIN = ("createsuperuser", "--noinput", "--username", "admin", "--email", "admin@ours.example")
PASSWORD = {"DJANGO_SUPERUSER_PASSWORD": "the-services"}
GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON systemtasks_systemtask, systemtasks_taskrun,
    systemtasks_searchtext, systemtasks_searchchange TO own_role;
GRANT SELECT ON systemtasks_scheduleentry TO own_role;
GRANT SELECT ON systemtasks_taskstatistics, systemtasks_statisticsprogress TO own_role;
GRANT SELECT, INSERT ON systemtasks_statisticschange TO own_role;
GRANT SELECT ON django_migrations TO own_role;
"""


@pytest.fixture
def database() -> Iterator[str]:
    with projects.database() as url:
        yield url


def service(folder: Path, database: str, **variables: str) -> Service:
    return Service(folder, database, "redis://127.0.0.1:1", **variables)


def place(tables: Iterable[str]) -> dict[str, set[str]]:
    """Return the names of the tables by schema."""
    found: dict[str, set[str]] = {}
    for table in tables:
        schema, _, name = table.partition(".")
        found.setdefault(schema, set()).add(name)
    return found


def test_it_makes_both_places_once_and_all_is_applied(tmp_path: Path, database: str) -> None:
    ours = service(tmp_path, database)
    assert ours.call("migrate", "--check").returncode == 1
    assert everything(database) == {}

    ours.run("migrate")

    made = place(everything(database))
    assert made.pop("public") == {
        "django_migrations",
        "systemtasks_acknowledgement",
        "systemtasks_runagain",
        "systemtasks_savedview",
        "systemtasks_scheduleentry",
        "systemtasks_searchchange",
        "systemtasks_searchtext",
        "systemtasks_statisticschange",
        "systemtasks_statisticsprogress",
        "systemtasks_systemtask",
        "systemtasks_taskrun",
        "systemtasks_taskrun_default",
        "systemtasks_taskstatistics",
    }
    assert made.keys() == {"systemtasks_service"}
    assert {"auth_user", "django_migrations", "knox_authtoken"} < made["systemtasks_service"]
    shared = query(database, "SELECT DISTINCT app FROM public.django_migrations")
    assert shared == [("systemtasks",)]
    assert ours.call("migrate", "--check").returncode == 0
    assert "[ ]" not in ours.run("showmigrations")
    before = everything(database)
    ours.run("migrate")
    assert everything(database) == before


def test_two_at_once_wait_for_each_other(tmp_path: Path, database: str) -> None:
    """Each host of a deployment may run it first."""
    ours = service(tmp_path, database)
    with ThreadPoolExecutor() as threads:
        done = [threads.submit(ours.call, "migrate") for _ in range(2)]

    assert [one.result().returncode for one in done] == [0, 0]
    assert ours.call("migrate", "--check").returncode == 0


def test_it_goes_back_and_forth_as_it_is_told(tmp_path: Path, database: str) -> None:
    ours = service(tmp_path, database, SERVICE_SCHEMA="own")
    ours.run("migrate")

    ours.run("migrate", "systemtasks", "zero")
    assert place(everything(database))["public"] == {"django_migrations"}
    assert "[X] 0001_initial" not in ours.run("showmigrations", "systemtasks")

    ours.run("migrate", "systemtasks", "0001")
    assert "systemtasks_taskrun" in place(everything(database))["public"]
    assert ours.run("showmigrations", "systemtasks").count("[X]") == 1

    ours.run("migrate", "systemtasks_api", "zero")
    assert "systemtasks_api_tokengrant" not in place(everything(database))["own"]
    ours.run("migrate")
    assert "[ ]" not in ours.run("showmigrations")


def test_role_that_may_make_no_schema_is_told_what_to_do(tmp_path: Path, database: str) -> None:
    with role(database) as url:
        query(database, "GRANT CREATE ON SCHEMA public TO own_role")
        ours = service(tmp_path, url)
        refused = ours.call("migrate")
        sentence = refused.stderr.splitlines()[-1]
        assert sentence.startswith("CommandError: The database's role own_role may not make")
        assert everything(database) == {}

        query(database, sentence.rpartition(": ")[2])
        refused = ours.call("migrate")
        assert "may not migrate" in refused.stderr.splitlines()[-1]
        assert "pg_trgm" in refused.stderr.splitlines()[-1]

        query(database, "CREATE EXTENSION pg_trgm")
        ours.run("migrate")


def test_beside_a_project_a_role_needs_no_right_to_the_project_s_tables(
    tmp_path: Path, database: str
) -> None:
    Project(tmp_path, database, "redis://127.0.0.1:1").run("migrate")
    with role(database) as url:
        query(database, "CREATE SCHEMA systemtasks_service AUTHORIZATION own_role")
        query(database, GRANTS)
        ours = service(tmp_path, url)
        ours.run("migrate")

        ours.run(*ADMIN, **PASSWORD)
        assert ours.run("create_token", "admin")


def test_before_it_has_run_no_user_of_a_project_is_read_or_made(
    tmp_path: Path, database: str
) -> None:
    project = Project(tmp_path, database, "redis://127.0.0.1:1")
    project.run("migrate")
    project.run(*ADMIN, **PASSWORD)
    before = everything(database)
    ours = service(tmp_path, database)

    for words in (ADMIN, ("create_token", "admin"), ("list_tokens",)):
        refused = ours.call(*words, **PASSWORD)
        assert refused.returncode != 0
        assert "run `manage.py migrate` first" in refused.stderr
    assert everything(database) == before

    ours.run("migrate")
    refused = ours.call("create_token", "admin")
    assert "admin" in refused.stderr
    assert refused.returncode == 1


def test_database_of_before_keeps_all_that_it_has(tmp_path: Path, database: str) -> None:
    old = service(tmp_path, database, DJANGO_SETTINGS_MODULE="tests.project.before")
    old.run("migrate")
    old.run(*ADMIN, **PASSWORD)
    uuid = system_task_uuid("old.task")
    query(
        database,
        "INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp, "
        "finish_timestamp, duration, status, messages) "
        "VALUES (%s, 'old.task', '', '', now(), now(), 0, 'successful', '[]')",
        uuid,
    )
    before = everything(database)
    ours = service(tmp_path, database)

    ours.run("migrate")

    after = everything(database)
    assert {table: after[table] for table in before} == before
    assert ours.run(
        "shell",
        "--command",
        "from systemtasks.models import *; print(SystemTask.objects.get().name)",
    ).endswith("old.task")
    assert not query(database, "SELECT 1 FROM systemtasks_service.auth_user")
