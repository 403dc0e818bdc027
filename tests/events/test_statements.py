"""A statement that is written once, over connections that are kept."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import DataError, NotSupportedError, OperationalError, connection, transaction
from django.db.models import Value
from django.test import Client
from django.test.utils import CaptureQueriesContext

from events import statements
from events.statements import Statement
from systemtasks.models import SystemTask
from tests import factories
from tests.waiting import eventually

URL = "/api/v3/events/system_tasks"


def named(name: Value) -> Any:
    return SystemTask.objects.filter(name=name).values_list("uid", "messages")


@pytest.mark.django_db
def test_a_statement_takes_another_value_each_time_and_reads_columns_as_the_orm_does() -> None:
    statement = Statement(named)
    for name in ("a", "b"):
        factories.system_task(name, f"uid of {name}", messages=[factories.log_event(name)])
    for name in ("a", "b", "a"):
        assert statement.fetch(name) == list(named(Value(name)))
    assert statement.fetch("c") == []


@pytest.mark.django_db
def test_two_statements_in_one_say_what_each_says_alone() -> None:
    first = Statement(named)
    second = Statement(
        lambda uid: SystemTask.objects.filter(uid=uid).values_list("messages", "name", Value("5 %"))
    )
    for uid in ("1", "2"):
        factories.system_task("a", uid, messages=[factories.log_event(uid)])
    factories.system_task("b", "3", messages=[factories.log_event("3")])
    both = first.beside(second)
    for _ in range(2):
        assert both.fetch("a", "3") == [row + second.fetch("3")[0] for row in first.fetch("a")]
        assert second.fetch("3")[0][2] == "5 %"
        assert both.fetch("a", "4") == [(*row, None, None, None) for row in first.fetch("a")]
        assert both.fetch("c", "3") == []


@pytest.mark.django_db
def test_a_value_that_no_column_holds_is_an_error_not_another_value() -> None:
    factories.system_task("a", "1")
    with pytest.raises(DataError, match="NUL"):
        Statement(named).fetch("a\0b")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("threshold", [None, 0])
def test_plans_are_kept_unless_the_connection_says_otherwise(threshold: int | None) -> None:
    connection.close()
    connection.ensure_connection()
    kept: Any = connection.connection
    kept.prepare_threshold = threshold
    for _ in range(2):
        assert Statement(named).fetch("a") == []
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        assert cursor.fetchone() == (0 if threshold is None else 1,)
    connection.close()


@pytest.fixture
def altered(transactional_db: None) -> Iterator[Statement]:
    """A statement with a plan that a migration has made useless."""
    statement = Statement(lambda name: SystemTask.objects.filter(name=name).values_list("uid"))
    factories.system_task("a", "1")
    assert statement.fetch("a") == [("1",)]
    alter = "ALTER TABLE systemtasks_systemtask ALTER uid TYPE varchar({})"
    with connection.cursor() as cursor:
        cursor.execute(alter.format(200))
    yield statement
    with connection.cursor() as cursor:
        cursor.execute(alter.format(255))


def test_a_migration_that_changes_a_columns_type_is_no_error(altered: Statement) -> None:
    assert altered.fetch("a") == [("1",)]


def test_within_a_transaction_it_is_one_error(altered: Statement) -> None:
    def ask() -> None:
        with transaction.atomic():
            SystemTask.objects.first()  # with which psycopg begins it
            altered.fetch("a")

    with pytest.raises(NotSupportedError):
        ask()
    assert altered.fetch("a") == [("1",)]


@pytest.mark.django_db(transaction=True)
def test_plans_that_somebody_else_has_dropped_are_made_anew() -> None:
    statement = Statement(named)
    for _ in range(2):
        assert statement.fetch("a") == []
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")


@pytest.mark.django_db(transaction=True)
def test_server_side_binding_and_its_rollbacks_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setattr(connection.features, "uses_server_side_binding", True)
    statement = Statement(named)
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            assert statement.fetch("a") == []
        assert len(queries) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE name ~ 'events'")
        assert cursor.fetchone() == (0,)
    connection.close()


@pytest.mark.django_db
def test_statements_of_two_databases_are_asked_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factories.system_task("a", "1")
    first, second = (
        Statement(lambda name: SystemTask.objects.filter(name=name).values_list("name", "uid"))
        for _ in range(2)
    )
    for number in (1, 2):
        joined = first.beside(second)
        with CaptureQueriesContext(connection) as queries:
            assert joined.fetch("a", "a") == [("a", "1", "a", "1")]
            assert joined.fetch("a", "b") == [("a", "1", None, None)]
        assert len(queries) == 2 * number
        # The same database by another name, since the tests have but one.
        monkeypatch.setitem(vars(second), "alias", "other")
        both = dict.fromkeys(("default", "other"), connection)
        monkeypatch.setattr(statements, "connections", both)


def end(pid: int) -> None:
    """End this connection of Postgres's, from another one."""
    parameters = {**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        assert eventually(lambda: other.execute(alive, [pid]).fetchone() == (0,))


@pytest.mark.django_db(transaction=True)
def test_a_kept_connection_that_died_is_replaced_without_a_word(reader: Client) -> None:
    task = factories.system_task()
    kept: Any = connection.connection
    end(kept.info.backend_pid)
    answer = reader.get(f"{URL}/{task.uuid}/")
    assert answer.status_code == 200
    assert connection.connection is not kept


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_dies_within_a_transaction_is_an_error() -> None:
    statement = Statement(named)
    assert statement.fetch("a") == []
    connection.set_autocommit(False)
    try:
        connection.in_atomic_block = True
        kept: Any = connection.connection
        end(kept.info.backend_pid)
        with pytest.raises(OperationalError):
            statement.fetch("a")
    finally:
        connection.in_atomic_block = False
        connection.close()


@pytest.mark.django_db
def test_an_error_of_the_statement_itself_is_raised_at_once() -> None:
    statement = Statement(lambda name: named(name).extra(where=["1 / (length(name) - 1) > 0"]))
    factories.system_task("a")
    with CaptureQueriesContext(connection) as queries, pytest.raises(Exception, match="division"):
        statement.fetch("a")
    assert len(queries) == 1
