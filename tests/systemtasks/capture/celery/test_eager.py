"""In eager mode every run is recorded, and no end leaves its run behind."""

import json
import logging
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import Retry
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from config.celery import app
from systemtasks.capture.celery import received
from systemtasks.models import SystemTask
from systemtasks.runs.records import RunRecord
from systemtasks.states import State
from tests import tasks
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask
from tests.systemtasks.runs.test_recorder import INFO

logger = logging.getLogger("shop")
SENT = {"exchange": "", "routing_key": "celery"}


@pytest.fixture(autouse=True)
def _everything_is_eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = app.conf.task_always_eager, app.conf.task_eager_propagates
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager, app.conf.task_eager_propagates = before


def ends(records: list[RunRecord]) -> list[tuple[str, str]]:
    return [(record.name, record.state.value) for record in records]


@pytest.fixture
def add(make_task: MakeTask) -> Any:
    def add(*numbers: Any) -> int:
        logger.info("Adding %s", numbers)
        return sum(number if isinstance(number, int) else sum(number) for number in numbers)

    return make_task(add, name="tests.add")


@pytest.mark.django_db
def test_queryset_is_named_and_asks_the_database_for_nothing(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    unusable = ContentType.objects.extra(where=["no_such_column = 1"])
    alone = logging.Logger("alone", logging.INFO)  # noqa: LOG001 - no other handler prints it
    alone.addHandler(logging.NullHandler())
    usable: list[bool] = []

    def task() -> None:
        with transaction.atomic():
            alone.info("Looking at %s", unusable, extra={"tasks": unusable})
            try:
                raise LookupError(unusable)
            except LookupError as error:
                alone.info("Lost %r", error, exc_info=True)
            usable.append(not SystemTask.objects.exists())

    made = make_task(task, systemtasks_uid=lambda: unusable)
    with CaptureQueriesContext(connection) as queries:
        made.apply()

    assert usable == [True]
    assert not any("no_such_column" in query["sql"] for query in queries)
    (record,) = records
    assert (record.state, record.uid) == (State.SUCCESS, "")
    looking, lost = json.loads(record.messages)
    assert (looking["event"], looking["attributes"]) == (
        "Looking at <QuerySet>",
        {"tasks": "<QuerySet>"},
    )
    assert lost["event"] == "Lost LookupError(<QuerySet>)"
    assert lost["attributes"]["exception"]["message"] == "<QuerySet>"


@pytest.mark.django_db
def test_queryset_that_is_an_argument_asks_the_database_for_nothing(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    unusable = ContentType.objects.extra(where=["no_such_column = 1"])
    # Celery itself prints the arguments of a task that it runs.
    with django_assert_num_queries(0):
        given = (unusable,), {"tasks": unusable}
        running = received.attempt(INFO, {"id": "id-1"}, *given).in_progress()
        queued = received.queued("tests.succeed", {"id": "id-2"}, (*given, {}), SENT)

    assert queued
    for record in (running.record(), queued.record()):
        assert (record.args, record.kwargs) == ('["<QuerySet>"]', '{"tasks":"<QuerySet>"}')


def test_message_of_an_exception_is_the_one_that_celery_prints(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        subprocess.run(["false"], check=True)

    make_task(task).apply()

    message = "Command '['false']' returned non-zero exit status 1."
    assert records[0].exception == f"subprocess.CalledProcessError: {message}"


def test_delay_is_recorded_with_its_id(records: list[RunRecord], add: Any) -> None:
    result = add.delay(1, 2)

    assert result.get() == 3
    assert [(one.celery_id, one.attempt, one.state) for one in records] == [
        (result.id, 1, State.SUCCESS)
    ]


def test_direct_call_is_no_run_of_its_own(
    records: list[RunRecord], add: Any, make_task: MakeTask
) -> None:
    add(1, 2)
    assert records == []
    make_task(lambda: add(1, 2), name="tests.outer").delay()

    assert ends(records) == [("tests.outer", "success")]
    assert events(records[0]) == ["Adding (1, 2)"]


def test_each_task_of_a_chain_is_a_run(records: list[RunRecord], add: Any) -> None:
    chain(add.s(1), add.s(2), add.s(3)).delay()

    by_arguments = {record.args: record for record in records}
    assert sorted(map(str, by_arguments)) == ["[1,2]", "[1]", "[3,3]"]
    assert {record.state for record in records} == {State.SUCCESS}
    assert events(by_arguments["[3,3]"]) == ["Adding (3, 3)"]
    assert len({record.celery_id for record in records}) == 3


def test_rest_of_a_chain_that_fails_has_no_run(
    records: list[RunRecord], add: Any, make_task: MakeTask
) -> None:
    fails = make_task(lambda: 1 / 0, name="tests.fails")
    with pytest.raises(ZeroDivisionError):
        chain(fails.si(), add.si(2)).delay()

    assert ends(records) == [("tests.fails", "failure")]


def test_each_task_of_a_group_and_a_chord_is_a_run(records: list[RunRecord], add: Any) -> None:
    group(add.s(1), add.s(2)).delay()
    assert [record.args for record in records] == ["[1]", "[2]"]
    records.clear()
    chord([add.s(1), add.s(2)])(add.s())

    assert sorted(str(record.args) for record in records) == ["[1]", "[2]", "[[1,2]]"]
    assert {record.state for record in records} == {State.SUCCESS}


def test_nested_runs_say_what_they_say_themselves(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    inner = make_task(lambda: logger.info("Inner"), name="tests.inner")

    def middle() -> None:
        logger.info("Before")
        inner.apply()
        inner.delay()
        logger.info("After")
        raise ValueError

    middle_task = make_task(middle, name="tests.middle")

    def outer() -> None:
        middle_task.apply()
        logger.info("Outer")

    make_task(outer, name="tests.outer").apply()

    assert [(record.name, events(record)) for record in records] == [
        ("tests.inner", ["Inner"]),
        ("tests.inner", ["Inner"]),
        ("tests.middle", ["Before", "After", "ValueError"]),
        ("tests.outer", ["Outer"]),
    ]


def test_nested_run_of_the_same_id_is_told_apart(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    inner = make_task(lambda: logger.info("Inner"), name="tests.inner")

    def outer() -> None:
        inner.apply(task_id="same")
        logger.info("Outer")

    make_task(outer, name="tests.outer").apply(task_id="same")

    assert [(record.name, events(record)) for record in records] == [
        ("tests.inner", ["Inner"]),
        ("tests.outer", ["Outer"]),
    ]


@pytest.mark.parametrize("propagates", [True, False])
def test_exception_that_reaches_the_caller_is_recorded_once(
    records: list[RunRecord], propagates: bool
) -> None:
    app.conf.task_eager_propagates = propagates
    with pytest.raises(tasks.ShopError):
        tasks.fail.apply(throw=None if propagates else True)
    (record,) = records

    assert record.state == State.FAILURE
    assert record.exception == "tests.tasks.ShopError: order 7: no such order"
    assert events(record) == [record.exception]


def test_retry_that_reaches_the_caller_is_a_retry(records: list[RunRecord]) -> None:
    with pytest.raises(Retry):
        tasks.retry.apply(args=(9,), throw=True)
    (record,) = records

    assert (record.state, record.status) == (State.RETRY, "warning")
    assert record.exception == "ConnectionError: away"
    assert events(record)[-1] == "Retry in 0.05 s: ConnectionError: away"
    assert record.lease is None


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt()])
def test_what_no_task_catches_is_recorded_as_a_provisional_error(
    records: list[RunRecord], make_task: MakeTask, ending: BaseException
) -> None:
    def leave() -> None:
        raise ending

    with pytest.raises(type(ending)):
        make_task(leave).apply()
    (record,) = records

    assert (record.state, record.status) == (State.FAILURE, "error")
    assert record.exception.startswith(type(ending).__name__)
    assert record.lease is not None
    assert record.provisional


def test_task_after_one_that_left_is_a_run_of_its_own(records: list[RunRecord], add: Any) -> None:
    with pytest.raises(SystemExit):
        tasks.leave.apply()
    add.delay(1)

    assert ends(records) == [("tests.exit", "failure"), ("tests.add", "success")]
    assert records[1].exception == ""


def test_hook_that_fails_after_a_success_leaves_it_one(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def on_success(*_: object) -> None:
        raise ValueError("afterwards")

    with pytest.raises(ValueError, match="afterwards"):
        make_task(lambda: None, name="tests.hooked", on_success=on_success).apply()

    assert ends(records) == [("tests.hooked", "success")]
