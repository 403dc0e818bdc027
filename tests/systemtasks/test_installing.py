"""Installing the app into a project's database, checking it, and uninstalling it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import projects
from tests.config.roles import role
from tests.processes import ROOT
from tests.projects import Project, query

pytestmark = pytest.mark.slow

NO_BROKER = "redis://127.0.0.1:1"
EXTENSION = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'"
INDEX = "SELECT indexdef FROM pg_indexes WHERE indexname = 'searchtext_document'"
TABLES = "SELECT tablename FROM pg_tables WHERE starts_with(tablename, 'systemtasks') ORDER BY 1"
ALL_TABLES = [
    ("systemtasks_acknowledgement",),
    ("systemtasks_runagain",),
    ("systemtasks_savedview",),
    ("systemtasks_scheduleentry",),
    ("systemtasks_searchchange",),
    ("systemtasks_searchtext",),
    ("systemtasks_statisticschange",),
    ("systemtasks_statisticsprogress",),
    ("systemtasks_systemtask",),
    ("systemtasks_taskrun",),
    ("systemtasks_taskrun_default",),
    ("systemtasks_taskstatistics",),
]
RUN = """
from celery import shared_task
from systemtasks.models import TaskRun
from systemtasks.storage.writer import writer
@shared_task(name="project.work")
def work():
    pass
work.apply()
assert writer.flush()
print(TaskRun.objects.count())
"""


@pytest.fixture
def database() -> Iterator[str]:
    with projects.database() as url:
        yield url


@pytest.fixture
def project(tmp_path: Path, database: str) -> Project:
    return Project(tmp_path, database, NO_BROKER)


@pytest.mark.parametrize("was_there", [True, False])
def test_uninstalled_app_leaves_the_extension(
    project: Project, database: str, was_there: bool
) -> None:
    if was_there:
        query(database, "CREATE EXTENSION pg_trgm")
    project.run("migrate")
    project.run("migrate", "systemtasks", "zero")

    assert query(database, EXTENSION) == [(1,)]
    assert query(database, TABLES) == []
    project.run("migrate")
    assert query(database, TABLES) == ALL_TABLES


def test_extension_may_be_in_a_schema_that_nobody_searches(project: Project, database: str) -> None:
    query(database, 'CREATE SCHEMA "its own"')
    query(database, 'CREATE EXTENSION pg_trgm SCHEMA "its own"')

    project.run("migrate")
    [(definition,)] = query(database, INDEX)
    assert '"its own".gin_trgm_ops' in definition
    assert query(database, TABLES) == ALL_TABLES

    for back in ("0001", "zero"):
        project.run("migrate", "systemtasks", back)
    project.run("migrate")
    assert query(database, INDEX) == [(definition,)]
    assert query(database, "SHOW search_path") == [('"$user", public',)]


def test_user_that_may_not_create_the_extension_is_told_before_anything_is_made(
    tmp_path: Path, database: str
) -> None:
    with role(database) as url:
        query(database, "GRANT CREATE ON SCHEMA public TO own_role")
        project = Project(tmp_path, url, NO_BROKER)
        refused = project.call("migrate")
        assert refused.returncode != 0
        assert "(systemtasks.E005) The extension pg_trgm is missing" in refused.stderr
        assert "its user own_role may not create it" in refused.stderr
        assert query(database, TABLES) == []
        assert "systemtasks.E005" in project.call("check", "--database", "default").stderr

        query(database, "CREATE EXTENSION pg_trgm")
        project.run("migrate")
        assert "systemtasks" not in project.call("check", "--database", "default").stderr


def test_extension_that_was_dropped_is_warned_of(project: Project, database: str) -> None:
    project.run("migrate")
    query(database, "DROP EXTENSION pg_trgm CASCADE")
    warned = project.call("check", "--database", "default")
    assert warned.returncode == 0
    assert "WARNINGS:\n?: (systemtasks.E005) The extension pg_trgm is missing" in warned.stderr


def test_database_without_a_router_is_refused_and_with_ours_holds_all(
    tmp_path: Path, database: str
) -> None:
    with projects.database() as record:
        variables = {"RECORD_DATABASE_URL": record}
        project = Project(tmp_path, database, NO_BROKER)
        refused = project.call("check", **variables)
        assert refused.returncode != 0
        assert "(systemtasks.E004) Runs are written to SYSTEMTASKS['DATABASE'], 'record'" in (
            refused.stderr
        )

        variables["ROUTER"] = "systemtasks.routing.Router"
        assert "systemtasks" not in project.call("check", **variables).stderr
        project.run("migrate", **variables)
        project.run("migrate", "--database", "record", **variables)
        assert query(database, TABLES) == []
        assert query(record, TABLES) == ALL_TABLES
        assert project.run("shell", "-v0", "-c", RUN, **variables) == "1"
        project.run("migrate", "systemtasks", "zero", "--database", "record", **variables)
        assert query(record, TABLES) == []


def run_on_sqlite(
    folder: Path, *words: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command of a project on SQLite outside of its tests."""
    inherited = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "manage.py", *words],
        cwd=ROOT / "tests" / "tested_project",
        env={
            **inherited,
            "PYTHONPATH": str(ROOT),
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
            "SHOP_JOURNAL": str(folder / "journal"),
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_other_engine_is_refused_by_check_and_named_once_by_a_process(tmp_path: Path) -> None:
    refused = run_on_sqlite(tmp_path, "check")
    assert refused.returncode != 0
    assert "(systemtasks.E003) SYSTEMTASKS['DATABASE'] is 'default', which is sqlite" in (
        refused.stderr
    )

    work = "from shop.tasks import charge; import time; charge.apply((1,)); time.sleep(2)"
    ran = run_on_sqlite(tmp_path, "shell", "-v0", "-c", work)
    assert ran.returncode == 0
    assert ran.stderr.count("systemtasks") == 0
    assert ran.stderr.count("Nothing is recorded") == 1
    assert not (tmp_path / "journal").exists()


def test_app_that_is_switched_off_migrates_to_nothing_on_sqlite_and_back(tmp_path: Path) -> None:
    off = {"SHOP_ENABLED": ""}
    for words in (
        ("check", "--database", "default"),
        ("migrate",),
        ("makemigrations", "--check"),
        ("test", "shop.tests.InOneTransactionTests"),
        ("migrate", "systemtasks", "zero"),
        ("migrate",),
    ):
        ended = run_on_sqlite(tmp_path, *words, **off)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "Nothing is recorded" not in ended.stderr
    tables = "from django.db import connection; print(connection.introspection.table_names())"
    assert "systemtasks_" not in run_on_sqlite(tmp_path, "shell", "-v0", "-c", tables, **off).stdout
