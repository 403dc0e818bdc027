"""A project's own test suite leaves nothing behind: no row, no connection and no journal."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from psycopg import sql

from tests.processes import ROOT

pytestmark = pytest.mark.slow

PROJECT = ROOT / "tests" / "tested_project"
PYTEST = ("-m", "pytest", "-c", os.devnull, "--rootdir=.", "-W", "error")
TEST = ("-W", "error::RuntimeWarning", "manage.py", "test", "shop")
SCRIPT = ("-W", "error::RuntimeWarning", "suite.py")


@dataclass(frozen=True)
class Shop:
    """The project in a folder of its own, with the database that its settings name."""

    folder: Path
    database: str

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run Python with these arguments and variables. The result has its output in `stdout`."""
        default = settings.DATABASES["default"]
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")},
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DATABASE": self.database,
            "SHOP_JOURNAL": str(self.journal),
            **{f"SHOP_{name}": default[name] for name in ("HOST", "USER", "PASSWORD")},
        }
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def run_tests(self, command: Sequence[str], **variables: str) -> str:
        """Run its tests, assert that all pass, and return the output."""
        done = self.run(*command, **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def rows(self) -> int:
        with _connected(self.database) as connection:
            counted = connection.execute(
                "SELECT (SELECT count(*) FROM systemtasks_taskrun)"
                " + (SELECT count(*) FROM systemtasks_systemtask)"
            ).fetchone()
        assert counted
        return int(counted[0])

    def test_databases(self) -> list[str]:
        with _connected("postgres") as connection:
            found = connection.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)",
                [f"test_{self.database}"],
            )
            return [name for (name,) in found]


def _connected(database: str) -> "psycopg.Connection[tuple[Any, ...]]":
    default = settings.DATABASES["default"]
    return psycopg.connect(
        dbname=database,
        host=default["HOST"],
        user=default["USER"],
        password=default["PASSWORD"],
        autocommit=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project to a folder that is not below this checkout's own tests."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    (folder / "__init__.py").unlink()
    return folder


@pytest.fixture(scope="module")
def migrated(folder: Path, django_db_setup: None) -> Iterator[Shop]:
    name = f"shop_{uuid4().hex[:12]}"
    shop = Shop(folder, name)
    with _connected("postgres") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        done = shop.run("manage.py", "migrate")
        assert done.returncode == 0, done.stdout
        yield shop
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@pytest.fixture
def shop(migrated: Shop) -> Iterator[Shop]:
    yield migrated
    assert migrated.rows() == 0
    assert migrated.test_databases() == []
    assert [*migrated.journal.glob("*")] == []


def test_suite_of_pytest_leaves_nothing(shop: Shop) -> None:
    said = shop.run_tests((*PYTEST, "shop/test_shop.py"))

    assert "15 passed" in said
    assert "warning" not in said.lower()


def test_suite_of_django_in_parallel_leaves_nothing(shop: Shop) -> None:
    said = shop.run_tests((*TEST, "--parallel=2"))

    assert "Ran 9 tests" in said
    assert "warning" not in said.lower()


@pytest.mark.parametrize(
    "command", [(*PYTEST, "shop/test_shop.py"), TEST, SCRIPT], ids=["pytest", "test", "script"]
)
def test_task_that_an_app_runs_before_it_is_known_that_there_are_tests_leaves_nothing(
    shop: Shop, command: Sequence[str]
) -> None:
    said = shop.run_tests(command, SHOP_SENDS_AT_START="1", SHOP_EAGER="1")

    assert "warning" not in said.lower()


@pytest.mark.parametrize(
    "command", [(*PYTEST, "shop/test_shop.py"), (*TEST[:-1], "shop.tests")], ids=["pytest", "test"]
)
def test_suite_on_sqlite_leaves_nothing(folder: Path, command: Sequence[str]) -> None:
    shop = Shop(folder, str(folder / "shop.sqlite3"))
    said = shop.run_tests(command)

    assert "warning" not in said.lower()
    assert not (folder / "shop.sqlite3").exists()
    assert [*shop.journal.glob("*")] == []


@pytest.mark.parametrize("eager", ["", "1"])
def test_tests_about_records_say_so_and_have_them(shop: Shop, eager: str) -> None:
    said = shop.run_tests((*PYTEST, "shop/test_records.py"), SHOP_EAGER=eager)

    assert "8 passed" in said
