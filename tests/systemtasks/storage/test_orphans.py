"""Orphaned runs are ended with patience: first, every worker had the time to renew its lease."""

from types import SimpleNamespace

import pytest
from pytest_django import Settings

from systemtasks.storage import leases, orphans, rows
from systemtasks.storage.orphans import Reaper
from tests.systemtasks.storage.test_leases import Clock


class Process:
    """A process that renews its lease every 15 seconds of a clock, while its database is there."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.reaper = Reaper()
        self.reaped: list[float] = []
        self.orphaned = 0
        """The number of runs that the reaper finds each time."""

    def end_orphaned_runs(self, seconds: float) -> int:
        assert seconds == 60
        self.reaped.append(self.clock.now)
        return self.orphaned

    def renew_until(self, end: float) -> None:
        while self.clock.now < end:
            self.reaper.reap()
            self.clock.now += 15


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Process:
    made = Process()
    settings.SYSTEMTASKS = {"LEASE_SECONDS": 60.0}
    monkeypatch.setattr(orphans, "time", SimpleNamespace(monotonic=made.clock.monotonic))
    monkeypatch.setattr(rows, "end_orphaned_runs", made.end_orphaned_runs)
    monkeypatch.setattr(rows, "end_lost_runs", lambda _: 0)
    monkeypatch.setattr(leases, "over_for", lambda _: [])  # of other tests
    return made


def test_nothing_is_reaped_before_everybody_had_the_time_to_renew(process: Process) -> None:
    process.renew_until(1095)

    assert process.reaped == [1060, 1075, 1090]


def test_outage_of_the_database_gives_everybody_the_time_to_renew_again(process: Process) -> None:
    process.renew_until(1065)
    assert process.reaped == [1060]
    process.clock.now = 1200  # meanwhile, no lease could be renewed
    process.renew_until(1270)

    assert process.reaped == [1060, 1260]


def test_process_that_was_suspended_gives_everybody_the_time_to_renew(process: Process) -> None:
    process.renew_until(1065)
    process.clock.now = 5000
    process.renew_until(5065)

    assert process.reaped == [1060, 5060]


def test_reaped_runs_are_logged(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.orphaned = 3
    process.renew_until(1065)

    assert "3 task runs have ended with their workers" in caplog.text
