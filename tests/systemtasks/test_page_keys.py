"""The keys of a page and the number of rows, found by one statement of which the plan is kept."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from systemtasks import page_keys
from systemtasks.models import SystemTask, TaskRun
from systemtasks.page_keys import find
from systemtasks.states import State
from tests import factories


@pytest.fixture
def kept(transactional_db: None) -> Iterator[None]:
    """Open a new connection that keeps plans for this test, without a transaction."""
    connection.close()
    connection.ensure_connection()
    raw: Any = connection.connection
    raw.prepare_threshold = 0
    yield
    connection.close()


@pytest.fixture
def task() -> SystemTask:
    return factories.system_task()


def run_statement(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def plans() -> int:
    """Return the number of plans that are kept of these statements."""
    name = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'systemtasks_page%'"
    return int(run_statement(name)[0][0])


def test_the_rows_of_a_page_come_in_their_order_with_the_number_of_all(
    kept: None, task: SystemTask
) -> None:
    made = [factories.task_run(task, state=State.FAILURE) for _ in range(5)]
    factories.task_run(task)
    failed = TaskRun.objects.filter(state=State.FAILURE)
    for order in ("id", "-id"):
        rows = failed.order_by(order)
        expected = [*rows[1:3]]
        for _ in range(2):  # planned, and by the plan that was kept
            found = find(rows, 1, 3, 100)
            assert found.read() == expected
            assert found.count == len(made)
    assert find(failed.order_by("id"), 0, 2, 3).count == 3
    assert find(failed.none(), 0, 2, 3).read() == []
    assert find(failed.order_by("id"), 5, 7, 0).read() == []


def test_a_repeated_statement_is_planned_once_and_sees_new_rows(
    kept: None, task: SystemTask
) -> None:
    rows = TaskRun.objects.newest_first()
    for number in range(1, 4):
        factories.task_run(task)
        assert find(rows, 0, 10, 100).count == number
    assert plans() == 1
    [(planned,)] = run_statement("SELECT generic_plans FROM pg_prepared_statements")
    assert planned == 3


def test_a_connection_keeps_the_last_few_plans(kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_keys, "KEPT", 2)
    rows = TaskRun.objects.newest_first()
    for number in range(1, 5):
        find(rows, 0, number, 100)
        find(rows, 0, 1, 100)
    assert plans() == 2
    names = "SELECT name FROM pg_prepared_statements ORDER BY prepare_time"
    before = run_statement(names)
    find(rows, 0, 1, 100)
    find(rows, 0, 4, 100)
    assert run_statement(names) == before


def test_no_plan_is_kept_in_a_transaction_or_unless_the_connection_says_so(kept: None) -> None:
    rows = TaskRun.objects.newest_first()
    with transaction.atomic():
        find(rows, 0, 1, 100)
    raw: Any = connection.connection
    raw.prepare_threshold = None
    find(rows, 0, 1, 100)
    assert plans() == 0


def test_plans_that_somebody_else_has_dropped_are_made_anew(kept: None, task: SystemTask) -> None:
    run = factories.task_run(task)
    rows = TaskRun.objects.newest_first()
    for _ in range(3):
        assert find(rows, 0, 1, 100).read() == [run]
        run_statement("DEALLOCATE ALL")


def test_an_error_of_the_statement_is_raised_and_the_next_one_is_answered(kept: None) -> None:
    rows = TaskRun.objects.extra(where=["1 / (length(queue) - length(queue)) = 1"])
    factories.task_run(factories.system_task())
    with pytest.raises(Exception, match="division by zero"):
        find(rows, 0, 1, 100)
    assert find(TaskRun.objects.all(), 0, 1, 100).count == 1


def test_the_estimate_is_that_of_all_rows_and_takes_no_plan_anew(
    kept: None, task: SystemTask
) -> None:
    for _ in range(40):
        factories.task_run(task)
    run_statement("ANALYZE systemtasks_taskrun")
    about_40 = pytest.approx(40, rel=0.5)  # of its pages, which may have become more
    rows = TaskRun.objects.newest_first()
    found = find(rows, 0, 1, 10)
    assert found.count == 10
    with CaptureQueriesContext(connection) as queries:
        assert found.estimate() == about_40
    assert "EXECUTE systemtasks_page_0" in queries[-1]["sql"]
    run_statement("DEALLOCATE ALL")
    assert found.estimate() == about_40
    with transaction.atomic():
        assert find(rows, 0, 1, 10).estimate() == about_40
