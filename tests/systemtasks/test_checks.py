"""`manage.py check` reports a journal that others can write to or that cannot be used."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from django.apps import apps
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connections, router
from pytest_django import Settings

from systemtasks.checks import check_database, check_settings
from systemtasks.models import SystemTask
from systemtasks.storage.journal import Journal
from tests.systemtasks.accounts import as_nobody
from tests.systemtasks.storage.test_folder import REFUSED


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path / "data" / "journal")}
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "journal"


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_folder_that_is_open_to_others_is_refused(
    folder: Path, make: Callable[[Path], None], said: str
) -> None:
    make(folder)

    with pytest.raises(SystemCheckError, match=said) as refused:
        call_command("check")
    assert "systemtasks.E002" in str(refused.value)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize("exists", [True, False])
def test_folder_that_is_private_or_can_be_made_so_is_all_right(folder: Path, exists: bool) -> None:
    if exists:
        journal = Journal()
        journal.append(b"{}\n")
        journal.discard()
        assert folder.exists()

    assert check_settings() == []


@pytest.mark.parametrize(("mode", "expected"), [(0o777, ["systemtasks.W001"]), (0o1777, [])])
def test_folder_that_others_can_replace_is_warned_of(
    folder: Path, mode: int, expected: list[str]
) -> None:
    folder.parent.chmod(mode)

    assert ids([*check_settings()]) == expected


def test_folder_that_cannot_be_made_is_warned_of(settings: Settings, shared: Path) -> None:
    shared.chmod(0o755)
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(shared / "journal")}

    def check() -> None:
        (warning,) = check_settings()
        assert warning.id == "systemtasks.W002"
        assert f"{shared} cannot be written to" in warning.msg

    as_nobody(check)


def test_process_that_records_nothing_needs_no_folder(settings: Settings, folder: Path) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "ENABLED": False}
    folder.mkdir()
    folder.chmod(0o777)

    assert check_settings() == []


def test_other_database_than_postgres_is_refused_except_in_tests(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
    assert check_settings() == []
    monkeypatch.setattr("systemtasks.checks.is_under_test", lambda: False)

    (error,) = check_settings()
    assert error.id == "systemtasks.E003"
    assert "is sqlite and not PostgreSQL" in error.msg


class Tenants:
    """Decides which tables are made in the current schema, as the router of django-tenants does."""

    shared = True

    def allow_migrate(self, db: str, app_label: str, **_: object) -> bool | None:
        return None if self.shared else False


def test_router_that_has_no_tables_made_is_warned_of(settings: Settings, folder: Path) -> None:
    tenants = Tenants()
    settings.DATABASE_ROUTERS = [tenants]
    assert check_settings() == []

    tenants.shared = False
    (warning,) = check_settings()
    assert warning.id == "systemtasks.W003"
    assert "'default'" in warning.msg
    assert "SHARED_APPS" in str(warning.hint)


def test_our_router_leaves_the_default_database_to_other_routers(settings: Settings) -> None:
    tenants = Tenants()
    settings.DATABASE_ROUTERS = ["systemtasks.routing.Router", tenants]
    assert router.allow_migrate_model("default", SystemTask)
    assert not router.allow_migrate_model("elsewhere", SystemTask)

    tenants.shared = False
    assert not router.allow_migrate_model("default", SystemTask)


@pytest.mark.parametrize("has_psycopg2", [True, False])
def test_driver_in_use_is_named_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, folder: Path, has_psycopg2: bool
) -> None:
    def find(name: str) -> object:
        assert name == "psycopg2"
        return object() if has_psycopg2 else None

    monkeypatch.setattr("systemtasks.checks.find_spec", find)
    messages = check_settings()
    assert ids([*messages]) == (["systemtasks.I001"] if has_psycopg2 else [])
    assert all(f"Django uses psycopg {psycopg.__version__}" in each.msg for each in messages)


def test_process_without_psycopg_3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'psycopg\[binary\]'"):
        apps.get_app_config("systemtasks").ready()


def test_default_folder_that_no_process_can_use_is_warned_of(
    settings: Settings, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.chmod(0o755)
    settings.SYSTEMTASKS = {}
    monkeypatch.setattr("systemtasks.storage.folder._home", lambda _: shared / "home")
    monkeypatch.setattr(tempfile, "tempdir", str(shared))

    def check() -> None:
        (warning,) = check_settings()
        assert warning.id == "systemtasks.W002"
        assert f"{shared / 'home'}" in warning.msg
        assert warning.msg.count(f"{shared} cannot be written to") == 2

    as_nobody(check)


def test_default_folder_that_can_be_made_is_all_right(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SYSTEMTASKS = {}
    monkeypatch.setattr("systemtasks.storage.folder._home", lambda _: tmp_path / "home")
    assert check_settings() == []


def test_database_that_cannot_be_reached_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OperationalError("nobody answers")

    monkeypatch.setattr(connections["default"], "cursor", refuse)
    assert check_database(databases=["default"]) == []
