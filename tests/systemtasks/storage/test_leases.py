"""A worker's main process takes a lease for its children's runs too, and renews it."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from pytest_django import Settings

from systemtasks.storage import leases, rows
from systemtasks.storage.leases import Renewal


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
    taken = leases.current_lease()

    assert leases.current_lease() is taken
    assert leases.to_renew() == taken.id


def test_children_of_a_worker_stand_under_its_lease_and_do_not_renew_it() -> None:
    taken = leases.take(worker=True)

    assert in_a_child(lambda: leases.current_lease().id) == taken.id
    assert in_a_child(leases.to_renew) is None
    assert leases.to_renew() == taken.id


def test_forked_process_of_another_kind_takes_a_lease_of_its_own() -> None:
    taken = leases.current_lease()

    def own() -> str | None:
        assert leases.to_renew() is None
        own_lease = leases.current_lease()
        assert leases.to_renew() == own_lease.id
        return own_lease.id

    assert in_a_child(own) not in (taken.id, None)


class Clock:
    """The time of the modules that are given it, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_lease_is_renewed_every_quarter_of_its_time(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"LEASE_SECONDS": 60.0}
    clock, renewed = Clock(), []
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(rows, "renew_lease", lambda lease: renewed.append((lease, clock.now)))
    taken, renewal = leases.take(), Renewal()
    answers = []
    while clock.now < 1060:
        answers.append(renewal.renew())
        clock.now += 5

    assert renewed == [(taken.id, moment) for moment in (1000, 1015, 1030, 1045)]
    assert answers == [True, False, False] * 4


def test_renewal_that_fails_is_tried_again_at_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(_: str) -> None:
        raise OperationalError("away")

    leases.take()
    renewal = Renewal()
    monkeypatch.setattr(rows, "renew_lease", away)
    with pytest.raises(OperationalError):
        renewal.renew()
    renewed: list[str] = []
    monkeypatch.setattr(rows, "renew_lease", renewed.append)

    assert renewal.renew()
    assert len(renewed) == 1


def test_process_without_a_lease_of_its_own_renews_none(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[str] = []
    monkeypatch.setattr(rows, "renew_lease", renewed.append)

    assert not Renewal().renew()
    assert renewed == []
