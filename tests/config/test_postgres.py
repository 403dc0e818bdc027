"""A connection of the service looks for its tables in its own schema first."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.db import connections
from psycopg import sql

from config import environment
from config.postgres import SERVICE, SHARED
from config.postgres.base import DatabaseWrapper
from tests import projects
from tests.config.pooler import pgbouncer
from tests.config.roles import role
from tests.projects import query

OWN = "systemtasks_service"


@pytest.fixture
def database() -> Iterator[str]:
    with projects.database() as url:
        yield url


@pytest.fixture
def migrated(database: str) -> str:
    """Make a database with the service's schema. Its tables have no columns."""
    wrapper = DatabaseWrapper(connections["default"].settings_dict, SERVICE)
    with psycopg.connect(database) as connection:
        connection.execute(f"CREATE SCHEMA {OWN}")
        for name in [*wrapper.introspection.django_table_names(), "django_migrations"]:
            connection.execute(sql.SQL("CREATE TABLE {} ()").format(sql.Identifier(OWN, name)))
    return database


@contextmanager
def own_role(database: str, name: str = "own_role") -> Iterator[str]:
    """Yield the database's URL for another role, which may use both schemas."""
    with role(database, name) as url:
        query(database, f"GRANT USAGE ON SCHEMA {OWN} TO {name}")
        yield url


def with_options(database: str, options: str) -> str:
    return f"{database}&options={quote(options)}"


def connect(database: str, alias: str = "default") -> Any:
    """Return a connection as Django makes it."""
    defaults = connections["default"].settings_dict
    wrapper = DatabaseWrapper({**defaults, **environment.database(database)}, alias)
    return wrapper.get_new_connection(wrapper.get_connection_params())


def schemas(database: str, alias: str = "default") -> list[str]:
    """Return the schemas that such a connection searches."""
    with closing(connect(database, alias)) as connection:
        found: list[str] = connection.execute("SELECT current_schemas(false)::text[]").fetchone()[0]
        return found


def test_the_service_s_own_schema_is_looked_into_first(migrated: str) -> None:
    assert schemas(migrated) == [OWN, "public"]


def test_migrations_see_one_place_alone(migrated: str) -> None:
    assert schemas(migrated, SERVICE) == [OWN]
    assert schemas(migrated, SHARED) == ["public"]


def test_what_the_url_says_of_the_search_path_comes_after_it(migrated: str) -> None:
    query(migrated, 'CREATE SCHEMA "the shop"')
    options = r'-c search_path="the\ shop",public -c statement_timeout=7s'

    assert schemas(with_options(migrated, options)) == [OWN, "the shop", "public"]
    assert schemas(with_options(migrated, options), SHARED) == ["the shop", "public"]


def test_other_options_stay_wherever_they_are_from(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=7s")

    with closing(connect(migrated)) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone()[0] == "7s"
    with closing(connect(with_options(migrated, "-c statement_timeout=8s"))) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone()[0] == "8s"
    assert schemas(migrated) == [OWN, "public"]


def test_search_path_of_the_role_comes_after_it(migrated: str) -> None:
    query(migrated, "CREATE SCHEMA shop")
    with own_role(migrated) as url:
        query(migrated, "GRANT USAGE ON SCHEMA shop TO own_role")
        query(migrated, "ALTER ROLE own_role SET search_path = shop")

        assert schemas(url) == [OWN, "shop"]
        assert schemas(url, SHARED) == ["shop"]


def test_role_that_looks_there_first_is_told_nothing(migrated: str) -> None:
    with own_role(migrated) as url:
        query(migrated, f"ALTER ROLE own_role SET search_path = {OWN}, public")

        with closing(connect(url)) as connection:
            assert "options" not in connection.info.get_parameters()
        assert schemas(url, SHARED) == ["public"]


def test_role_of_the_schema_s_name_has_its_tables_beside_it(migrated: str) -> None:
    with own_role(migrated, OWN) as url:
        assert schemas(url) == [OWN, "public"]
        assert schemas(url, SHARED) == ["public"]


@pytest.mark.parametrize(
    "lost", [f"DROP TABLE {OWN}.auth_user", f"DROP SCHEMA {OWN} CASCADE"], ids=["table", "schema"]
)
def test_table_that_the_service_lacks_is_never_a_project_s_of_that_name(
    migrated: str, lost: str
) -> None:
    query(migrated, "CREATE TABLE public.auth_user ()")
    query(migrated, lost)

    with pytest.raises(psycopg.OperationalError, match=r"run `manage.py migrate` first"):
        connect(migrated)


def test_role_that_may_not_use_the_schema_is_one_sentence(migrated: str) -> None:
    with own_role(migrated) as url:
        query(migrated, f"REVOKE USAGE ON SCHEMA {OWN} FROM own_role")

        with pytest.raises(psycopg.OperationalError, match="its role may not use one of them"):
            connect(url)


def test_role_without_another_schema_migrates_nothing_shared(migrated: str) -> None:
    with own_role(migrated) as url:
        query(migrated, f"ALTER ROLE own_role SET search_path = {OWN}")

        with pytest.raises(psycopg.OperationalError, match="no schema to look into"):
            connect(url, SHARED)


# Behind a pooler


@pytest.mark.parametrize("lines", [(), ("ignore_startup_parameters = options",)])
def test_pooler_that_hands_no_search_path_on_is_one_sentence(
    migrated: str, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    with (
        pgbouncer(migrated, tmp_path, *lines) as url,
        pytest.raises(psycopg.OperationalError, match="needs a role of its own, and ALTER ROLE"),
    ):
        connect(url)


def test_behind_a_pooler_the_role_says_where_to_look(migrated: str, tmp_path: Path) -> None:
    with own_role(migrated) as url:
        query(migrated, f"ALTER ROLE own_role SET search_path = {OWN}, public")

        with pgbouncer(url, tmp_path) as pooled:
            assert schemas(pooled) == [OWN, "public"]


# The name of a connection in Postgres


def limited(database: str, alias: str = "default") -> Any:
    """Return a connection of a thread that answers requests."""
    defaults = connections["default"].settings_dict
    wrapper = DatabaseWrapper({**defaults, **environment.database(database)}, alias)
    wrapper.statement_seconds = 7
    return wrapper.get_new_connection(wrapper.get_connection_params())


def limit_of(connection: Any) -> str:
    with closing(connection):
        found: str = connection.execute("SHOW statement_timeout").fetchone()[0]
        return found


def test_statements_of_requests_are_limited_and_no_others(migrated: str) -> None:
    assert limit_of(limited(migrated)) == "7s"
    assert limit_of(connect(migrated)) == "0"
    assert limit_of(connect(migrated, SERVICE)) == "0"
    assert limit_of(connect(migrated, SHARED)) == "0"


def test_limit_leaves_the_other_options_and_the_search_path(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=9s")
    with closing(limited(migrated)) as connection:
        assert connection.execute("SHOW lock_timeout").fetchone()[0] == "9s"
        assert connection.execute("SELECT current_schemas(false)").fetchone()[0][0] == OWN


@pytest.mark.parametrize("lines", [(), ("ignore_startup_parameters = options",)])
def test_pooler_that_hands_no_limit_on_is_logged_once(
    migrated: str,
    tmp_path: Path,
    lines: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DatabaseWrapper, "_is_warned", False)
    with own_role(migrated) as url:
        query(migrated, f"ALTER ROLE own_role SET search_path = {OWN}, public")
        with pgbouncer(url, tmp_path, *lines) as pooled:
            assert [limit_of(limited(pooled)) for _ in range(2)] == ["0", "0"]
    [record] = caplog.records
    assert "ALTER ROLE … SET statement_timeout = '7s'" in record.getMessage()


def test_role_s_own_limit_behind_a_pooler_is_enough(
    migrated: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatabaseWrapper, "_is_warned", False)
    with own_role(migrated) as url:
        query(migrated, f"ALTER ROLE own_role SET search_path = {OWN}, public")
        query(migrated, "ALTER ROLE own_role SET statement_timeout = '3s'")
        with pgbouncer(url, tmp_path) as pooled:
            assert limit_of(limited(pooled)) == "3s"
    assert caplog.records == []


def name_of(connection: Any) -> str:
    with closing(connection):
        found: str = connection.execute("SHOW application_name").fetchone()[0]
        return found


def test_connection_is_named_after_its_process(migrated: str) -> None:
    assert name_of(connect(migrated)).startswith("systemtasks ")
    assert f" {os.getpid()}@" in name_of(connect(migrated))


def test_name_that_somebody_has_given_stays(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(connect(f"{migrated}&application_name=web")) == "web"
    monkeypatch.setenv("PGAPPNAME", "of the environment")
    assert name_of(connect(migrated)) == "of the environment"
