"""A run in progress gets a row after a while, which is updated when the run logs more."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from pytest_django import Settings

from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord
from systemtasks.runs.values import moment
from systemtasks.states import State
from systemtasks.storage import progress
from systemtasks.storage.progress import InProgress
from tests.systemtasks.runs.test_recorder import begin, messages


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Clock]:
    made = Clock()
    settings.SYSTEMTASKS = {"BATCH_INTERVAL": 0.05, "RUNNING_INTERVAL": 1.0}
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=made.monotonic))
    yield made
    recorder.current.set(None)


def lasting() -> Run:
    run = begin()
    run.clock -= 10
    return run


def say(run: Run, event: str) -> None:
    run.log(logging.INFO, "shop", event, {})


def records(watched: InProgress) -> list[RunRecord]:
    return [entry.record() for entry in watched.entries()]


def test_run_that_has_only_just_begun_needs_no_row_yet() -> None:
    watched = InProgress()
    run = begin()
    watched.add(run)
    assert records(watched) == []
    run.clock -= 0.05
    (record,) = records(watched)

    assert (record.state, record.finish_timestamp) == (State.RUNNING, None)
    assert record.start_timestamp == moment(run.start)


def test_run_has_a_new_row_when_it_has_said_more_and_not_too_often(clock: Clock) -> None:
    watched = InProgress()
    run = lasting()
    watched.add(run)
    assert len(records(watched)) == 1
    clock.now += 10
    assert records(watched) == []
    say(run, "More")
    assert [message["event"] for message in messages(records(watched)[0])] == ["More"]
    say(run, "Still more")
    clock.now += 0.9
    assert records(watched) == []
    clock.now += 0.2

    assert len(records(watched)) == 1


def test_run_that_says_much_has_a_new_row_less_often(clock: Clock) -> None:
    watched = InProgress()
    run = lasting()
    watched.add(run)
    for _ in range(20):
        say(run, "x" * 8000)
    assert len(records(watched)) == 1
    say(run, "More")
    clock.now += 2.5
    assert records(watched) == []
    clock.now += 1

    assert len(records(watched)) == 1


@pytest.mark.parametrize("leaves", [True, False])
def test_run_that_has_ended_is_not_in_progress(leaves: bool) -> None:
    watched = InProgress()
    run = lasting()
    watched.add(run)
    if leaves:
        watched.remove(run)
        watched.remove(run)
    else:
        run.finish(State.SUCCESS)

    assert records(watched) == []


def test_patience_ends_sooner_while_a_run_has_no_row_or_may_say_more() -> None:
    watched = InProgress()
    assert watched.patience(5) == 5
    run = lasting()
    watched.add(run)
    assert watched.patience(5) == 0.05
    assert watched.patience(0.01) == 0.01
    records(watched)
    assert watched.patience(5) == 1.0
    watched.remove(run)

    assert watched.patience(5) == 5


def test_run_that_cannot_be_told_keeps_no_row_from_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = InProgress()
    broken, sound = lasting(), lasting()
    broken.uid = object()  # type: ignore[assignment]
    watched.add(broken)
    watched.add(sound)

    assert [entry.line for entry in watched.entries()] == [sound.in_progress().line]
    assert "A run in progress is not recorded as such" in caplog.text
