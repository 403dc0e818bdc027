"""SELECTs that are written once, over connections that are kept and plans that Postgres keeps."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import (
    DataError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.models import Value
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from events.prepared import prepared
from systemtasks.connecting import Row
from systemtasks.models import SystemTask
from tests import factories
from tests.tenants import tenant_backend
from tests.waiting import eventually

URL = "/api/v3/events/system_tasks"

NAIVE: dict[str, Any] = {
    name: factories.START.replace(tzinfo=None)
    for name in ("start_timestamp", "finish_timestamp", "expires")
}

Read = Callable[[str], list[Row]]


def named(name: Value) -> Any:
    return SystemTask.objects.filter(name=name).values_list("uid", "messages", Value("5 %"))


@pytest.fixture
def read() -> Read:
    return prepared(named)


@pytest.fixture
def kept(transactional_db: None) -> Iterator[None]:
    """Open a new connection for this test, without a transaction."""
    connection.close()
    connection.ensure_connection()
    yield
    connection.close()


def plans() -> int:
    """Return the number of plans that Postgres keeps for this connection's statements."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        [(number,)] = cursor.fetchall()
    return int(number)


@pytest.mark.django_db
def test_each_value_finds_its_rows_with_columns_as_the_orm_reads_them(read: Read) -> None:
    for name in ("a", "b"):
        factories.system_task(name, f"uid of {name}", messages=[factories.log_event(name)])
    for name in ("a", "b", "a"):
        assert read(name) == list(named(Value(name)))
    assert read("c") == []


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_as_the_orm_reads_them(kept: None, settings: Any, use_tz: bool) -> None:
    settings.USE_TZ = use_tz
    connection.close()

    def times(name: Value) -> Any:
        return SystemTask.objects.filter(name=name).values_list("start_timestamp", "expires")

    fields: dict[str, Any] = {} if use_tz else NAIVE
    factories.system_task("a", **fields)
    assert prepared(times)("a") == list(times(Value("a")))


@pytest.mark.django_db
def test_a_value_that_no_column_holds_is_an_error_not_another_value(read: Read) -> None:
    factories.system_task("a", "1")
    with pytest.raises(DataError, match="NUL"):
        read("a\0b")


@pytest.mark.django_db
def test_what_is_asked_is_in_djangos_log_of_queries(read: Read) -> None:
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            read("a")
        (query,) = queries
        assert '"systemtasks_systemtask"' in query["sql"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("threshold", [None, 0])
def test_plans_are_kept_unless_the_connection_says_otherwise(
    read: Read, threshold: int | None
) -> None:
    raw: Any = connection.connection
    raw.prepare_threshold = threshold
    for name in ("a", "b"):
        assert read(name) == []
    assert plans() == (0 if threshold is None else 1)


@pytest.fixture
def altered(kept: None) -> Iterator[Read]:
    """Reads with a plan that a migration has made invalid."""
    factories.system_task("a", "1")
    read = prepared(lambda name: SystemTask.objects.filter(name=name).values_list("uid"))
    assert read("a") == [("1",)]
    alter = "ALTER TABLE systemtasks_systemtask ALTER uid TYPE varchar({})"
    elsewhere(alter.format(200))
    yield read
    elsewhere(alter.format(255))


def elsewhere(statement: str, *values: object) -> list[Row]:
    """Return the result of this statement over another connection."""
    parameters = {**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        cursor = other.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def test_a_migration_that_changes_a_columns_type_is_no_error(altered: Read) -> None:
    assert altered("a") == [("1",)]


def test_within_a_transaction_it_is_no_error_either(altered: Read) -> None:
    with transaction.atomic():
        assert altered("a") == [("1",)]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("statement", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_plans_that_somebody_else_has_dropped_are_made_anew(read: Read, statement: str) -> None:
    for _ in range(3):
        assert read("a") == []
        # psycopg does not notice it, as if a connection pooler executed it.
        raw: Any = connection.connection
        assert raw.pgconn.exec_(statement.encode()).status == psycopg.pq.ExecStatus.COMMAND_OK


@pytest.mark.usefixtures("kept")
def test_server_side_binding_and_its_rollbacks_do_no_harm(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    monkeypatch.setattr(connection.features, "uses_server_side_binding", True)
    connection.close()
    for _ in range(2):
        assert read("a") == []
        with transaction.atomic():
            assert read("b") == []
            transaction.set_rollback(True)


@pytest.mark.usefixtures("kept")
def test_each_request_in_a_transaction_is_answered(
    reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = factories.system_task()
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    for _ in range(2):
        assert reader.get(f"{URL}/{task.uuid}/").status_code == 200
        assert reader.get(f"{URL}/{task.uuid}/?format=nonsense").status_code == 404


@pytest.mark.usefixtures("kept")
def test_rollback_that_drops_the_plans_of_psycopg_is_no_error_in_the_next_transaction(
    read: Read,
) -> None:
    for _ in range(2):
        assert read("a") == []
        raw: Any = connection.connection
        raw.prepare_threshold = 0
        psycopg.Cursor(raw).execute("SELECT 1", prepare=True)
        with transaction.atomic():
            assert not SystemTask.objects.exists()
            transaction.set_rollback(True)
        with transaction.atomic():
            assert read("a") == []


@pytest.fixture
def replica(kept: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a second connection, with another alias, to the database of the tests."""
    monkeypatch.setitem(connections.databases, "replica", connections.databases["default"])
    made: Any = connection.copy()
    connections["replica"] = made
    yield made
    made.close()
    del connections["replica"]


def test_each_query_goes_to_the_database_that_a_router_names(
    reader: Client, settings: Settings, replica: Any
) -> None:
    class Router:
        def db_for_read(self, model: type[Any], **_: object) -> str | None:
            return "replica" if model is SystemTask else None

    task = factories.system_task()
    settings.DATABASE_ROUTERS = [Router()]
    with CaptureQueriesContext(connection) as first, CaptureQueriesContext(replica) as second:
        assert reader.get(f"{URL}/{task.uuid}/").json()["uuid"] == str(task.uuid)
    (token,), (row,) = first, second
    assert '"knox_authtoken"' in token["sql"]
    assert '"systemtasks_systemtask"' in row["sql"]


def test_each_query_is_made_in_the_schema_of_its_own_request(kept: None, read: Read) -> None:
    factories.system_task(name="charge", uid="public")
    with tenant_backend() as backend:
        backend.schema = "acme"
        assert not SystemTask.objects.exists()

        backend.schema = "public"
        assert [uid for uid, *_ in read("charge")] == ["public"]

        backend.schema = "acme"
        assert read("charge") == []


def end(pid: int) -> None:
    """Terminate this connection from another one."""
    elsewhere("SELECT pg_terminate_backend(%s)", pid)
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    assert eventually(lambda: elsewhere(alive, pid) == [(0,)])


@pytest.mark.usefixtures("kept")
def test_a_kept_connection_that_died_is_replaced_without_a_word(reader: Client) -> None:
    task = factories.system_task()
    raw: Any = connection.connection
    end(raw.info.backend_pid)
    answer = reader.get(f"{URL}/{task.uuid}/")
    assert answer.status_code == 200
    assert connection.connection is not raw


@pytest.mark.usefixtures("kept")
def test_a_connection_that_dies_within_a_transaction_is_an_error(read: Read) -> None:
    def ask() -> None:
        with transaction.atomic():
            raw: Any = connection.connection
            end(raw.info.backend_pid)
            read("a")

    assert read("a") == []
    with pytest.raises(OperationalError):
        ask()
    assert read("a") == []


@pytest.mark.usefixtures("kept")
def test_an_error_of_the_statement_itself_is_raised_at_once() -> None:
    read = prepared(lambda name: named(name).extra(where=["1 / (length(name) - 1) > 0"]))
    factories.system_task("a")
    raw = connection.connection
    with CaptureQueriesContext(connection) as queries, pytest.raises(DataError, match="division"):
        read("a")
    assert len(queries) == 1
    assert connection.connection is raw
