"""The reports of a task are in its record. Outside a run, they do nothing."""

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from math import inf, nan
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from systemtasks import reporting
from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord
from systemtasks.states import State, Status
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask
from tests.systemtasks.runs.test_recorder import begin
from tests.systemtasks.traps import Colour, Word


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __format__ = __str__  # type: ignore[assignment]


def test_task_says_its_uid_its_status_and_its_messages(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        reporting.set_uid("ldap")
        reporting.info("Synced", users=7, password="hunter2")
        reporting.set_status("error")

    made = make_task(task)
    made.apply()
    (record,) = records
    (message,) = json.loads(record.messages)

    assert (record.uid, record.first_uid) == ("ldap", "")
    assert (record.state, record.status) == (State.SUCCESS, Status.ERROR)
    assert (message["event"], message["log_level"]) == ("Synced", "info")
    assert message["logger"] == made.name
    assert message["attributes"] == {"users": 7, "password": "********"}


@pytest.mark.parametrize(
    ("say", "level", "status"),
    [
        (reporting.info, "info", Status.SUCCESSFUL),
        (reporting.warning, "warning", Status.WARNING),
        (reporting.error, "error", Status.WARNING),
    ],
)
def test_warnings_and_errors_that_a_task_reports_make_it_a_warning(
    records: list[RunRecord],
    make_task: MakeTask,
    settings: Any,
    say: Callable[[str], None],
    level: str,
    status: Status,
) -> None:
    settings.SYSTEMTASKS = {"WARNING_FROM_LOGS": False}
    make_task(lambda: say("Said")).apply()
    (record,) = records

    assert record.status == status
    assert json.loads(record.messages)[0]["log_level"] == level


def test_status_that_a_task_chose_does_not_hide_its_exception(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        reporting.set_status(Status.SUCCESSFUL)
        raise ValueError

    make_task(task).apply()

    assert records[0].status == Status.ERROR


def test_status_that_a_task_chose_outweighs_its_warnings(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        reporting.warning("Careful")
        reporting.set_status(Status.SUCCESSFUL)

    make_task(task).apply()

    assert records[0].status == Status.SUCCESSFUL


def test_last_progress_of_a_row_of_them_stays(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        for done in range(3):
            reporting.progress(done, 4)
        reporting.info("Half-way")
        reporting.progress(3)
        reporting.progress(4, 4)

    make_task(task).apply()
    messages = json.loads(records[0].messages)

    assert events(records[0]) == ["2 of 4 done (50%)", "Half-way", "4 of 4 done (100%)"]
    assert messages[0]["attributes"] == {"done": 2, "total": 4}


def test_uid_of_none_is_no_uid() -> None:
    run = begin()
    reporting.set_uid("ldap")
    reporting.set_uid(None)
    recorder.current.set(None)

    assert run.finish(State.SUCCESS).record().uid == ""


@pytest.mark.parametrize("done", [nan, inf, -inf])
def test_progress_of_no_finite_number_says_nothing(
    done: float, caplog: pytest.LogCaptureFixture
) -> None:
    run = begin()
    reporting.progress(done, done)
    recorder.current.set(None)

    assert events(run.finish(State.SUCCESS).record()) == []
    assert caplog.text == ""


def test_progress_in_numbers_that_json_has_not_is_said() -> None:
    run = begin()
    reporting.progress(2**64)
    reporting.info("Between")
    reporting.progress(Decimal(3), Decimal(10))  # type: ignore[arg-type]
    recorder.current.set(None)

    said = events(run.finish(State.SUCCESS).record())
    assert said == ["1.84467e+19 done", "Between", "3 of 10 done (30%)"]


@pytest.mark.parametrize(("done", "total"), [(1.5, None), (1.5, 0), (1.5, nan), (1.5, inf)])
def test_progress_without_a_total_is_how_much_is_done(done: float, total: float | None) -> None:
    run = begin()
    reporting.progress(done, total)
    recorder.current.set(None)

    assert events(run.finish(State.SUCCESS).record()) == ["1.5 done"]


@pytest.mark.parametrize(
    "say",
    [
        lambda: reporting.set_uid("ldap"),
        lambda: reporting.set_status("error"),
        lambda: reporting.info("Said"),
        lambda: reporting.warning("Said"),
        lambda: reporting.error("Said"),
        lambda: reporting.progress(1, 2),
    ],
)
def test_outside_a_run_nothing_is_said_to_the_run_before(
    say: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    run = begin()
    recorder.end(run.celery_id)
    say()
    record = run.finish(State.SUCCESS).record()

    assert (record.uid, record.status, events(record)) == ("", Status.SUCCESSFUL, [])
    assert caplog.text == ""


@pytest.mark.parametrize(
    "say",
    [
        lambda: reporting.set_uid(Hostile()),
        lambda: reporting.set_status("splendid"),
        lambda: reporting.info("Said", event="again"),  # type: ignore[misc]
        lambda: reporting.progress("half"),  # type: ignore[arg-type]
        lambda: reporting.progress(10**400, 1),
        lambda: reporting.progress(Hostile()),  # type: ignore[arg-type]
        lambda: reporting.progress(1, Hostile()),  # type: ignore[arg-type]
        lambda: reporting.progress(1, "ten"),  # type: ignore[arg-type]
        lambda: reporting.set_status(Hostile()),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_logged_and_the_task_goes_on(
    say: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    run = begin()
    say()
    reporting.info("Still here")
    recorder.current.set(None)
    record = run.finish(State.SUCCESS).record()

    assert "Recording failed in" in caplog.text
    assert (record.uid, record.status) == ("", Status.SUCCESSFUL)
    assert events(record) == ["Still here"]


def test_hostile_attributes_are_described(records: list[RunRecord], make_task: MakeTask) -> None:
    make_task(lambda: reporting.info("Said", thing=Hostile())).apply()
    (message,) = json.loads(records[0].messages)

    assert message["attributes"] == {"thing": "<Hostile>"}


def test_event_that_is_no_text_is_printed_or_named(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def task() -> None:
        for event in (Hostile(), 7, ValueError("wrong"), ["text", Hostile()]):
            reporting.info(event)  # type: ignore[arg-type]

    make_task(task).apply()

    assert events(records[0]) == ["<Hostile>", "7", "wrong", "['text', <Hostile>]"]


@pytest.mark.parametrize(
    ("uid", "kept"),
    [
        (7, "7"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Word.KEY, "word"),
        (Colour.RED, "Colour.RED"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 1), "2026-01-01"),
        (("ldap", 7), "('ldap', 7)"),
        (np.int64(7), "7"),
    ],
)
def test_uid_is_a_text_or_the_like(uid: object, kept: str) -> None:
    run = begin()
    reporting.set_uid(uid)
    recorder.current.set(None)

    assert run.finish(State.SUCCESS).record().uid == kept


@pytest.mark.parametrize("number", [3, 3.0, True + 2, Decimal(3), np.int64(3), np.float32(3)])
def test_progress_is_in_any_numbers(number: Any) -> None:
    run = begin()
    reporting.progress(number, number)
    recorder.current.set(None)
    (message,) = json.loads(run.finish(State.SUCCESS).record().messages)

    assert message["event"] == "3 of 3 done (100%)"
    assert message["attributes"] == {"done": 3, "total": 3}


def test_soft_time_limit_that_comes_while_a_task_reports_reaches_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(Run, "log", interrupted)
    begin()
    with pytest.raises(SoftTimeLimitExceeded):
        reporting.info("Said")
    recorder.current.set(None)


def test_nested_run_says_nothing_of_the_one_around_it(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    inner = make_task(lambda: reporting.set_uid("inner"))

    def around() -> None:
        inner.apply()
        reporting.info("Around")

    make_task(around).apply()

    assert [(record.uid, events(record)) for record in records] == [
        ("inner", []),
        ("", ["Around"]),
    ]
