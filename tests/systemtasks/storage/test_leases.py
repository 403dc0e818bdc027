"""A worker's main process answers for its children's runs, and reaps others' with patience."""

import os
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from uuid import UUID

import pytest
from django.db import OperationalError
from pytest_django import Settings

from systemtasks.storage import leases, rows
from systemtasks.storage.leases import Keeper


@pytest.fixture(autouse=True)
def _none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_lease", None)


def in_a_child(ask: Callable[[], str | None]) -> str | None:
    answer, question = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(question, str(ask()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(question)
    text = os.read(answer, 100).decode()
    os.close(answer)
    return None if text == "None" else text


def test_lease_is_taken_once_and_when_it_is_needed() -> None:
    assert leases.to_renew() is None
    taken = leases.lease()

    assert leases.lease() is taken
    assert leases.to_renew() == taken.id


def test_children_of_a_worker_stand_under_its_lease_and_do_not_renew_it() -> None:
    taken = leases.take(worker=True)

    assert in_a_child(lambda: leases.lease().id) == taken.id
    assert in_a_child(leases.to_renew) is None
    assert leases.to_renew() == taken.id


def test_forked_process_of_another_kind_takes_a_lease_of_its_own() -> None:
    taken = leases.lease()

    def own() -> str | None:
        assert leases.to_renew() is None
        lease = leases.lease()
        assert leases.to_renew() == lease.id
        return lease.id

    assert in_a_child(own) not in (taken.id, None)


class House:
    """A clock, and a database that notes what the keeper asks of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.renewed: list[float] = []
        self.reaped: list[float] = []
        self.away = False
        self.lost = 0

    def monotonic(self) -> float:
        return self.now

    def renew(self, _: UUID) -> None:
        if self.away:
            raise OperationalError("away")
        self.renewed.append(self.now)

    def reap(self, lease: float) -> int:
        assert lease == 60
        self.reaped.append(self.now)
        return self.lost


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> House:
    made = House()
    settings.SYSTEMTASKS = {"LEASE_SECONDS": 60.0}
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=made.monotonic))
    monkeypatch.setattr(rows, "renew_lease", made.renew)
    monkeypatch.setattr(rows, "end_orphaned_runs", made.reap)
    return made


def keep_until(keeper: Keeper, house: House, end: float) -> None:
    while house.now < end:
        keeper.keep()
        house.now += 5


def test_lease_is_renewed_every_quarter_of_its_time(house: House) -> None:
    leases.take()
    keep_until(Keeper(), house, 1060)

    assert house.renewed == [1000, 1015, 1030, 1045]


def test_process_without_a_lease_of_its_own_neither_renews_nor_reaps(house: House) -> None:
    keep_until(Keeper(), house, 1200)

    assert (house.renewed, house.reaped) == ([], [])


def test_nothing_is_reaped_before_everybody_had_the_time_to_renew(house: House) -> None:
    leases.take()
    keep_until(Keeper(), house, 1095)

    assert house.reaped == [1060, 1075, 1090]


def test_outage_of_the_database_gives_everybody_the_time_to_renew_again(house: House) -> None:
    leases.take()
    keeper = Keeper()
    keep_until(keeper, house, 1065)
    assert house.reaped == [1060]
    house.away = True
    while house.now < 1200:
        with suppress(OperationalError):
            keeper.keep()
        house.now += 5
    house.away = False
    back = house.now
    keep_until(keeper, house, back + 70)

    assert house.renewed[-5:] == [back + seconds for seconds in (0, 15, 30, 45, 60)]
    assert house.reaped == [1060, back + 60]


def test_process_that_was_suspended_gives_everybody_the_time_to_renew(house: House) -> None:
    leases.take()
    keeper = Keeper()
    keep_until(keeper, house, 1065)
    house.now = 5000
    keep_until(keeper, house, 5065)

    assert house.reaped == [1060, 5060]


def test_reaped_runs_are_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    leases.take()
    house.lost = 3
    keep_until(Keeper(), house, 1065)

    assert "3 task runs have ended with their workers" in caplog.text
