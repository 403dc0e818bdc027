"""Runs that wait for the database are bounded, in memory and on disk. The oldest go first."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.test import override_settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.runs.journal_line import Entry, decode
from systemtasks.states import State, Status
from systemtasks.storage.journal import Journal
from systemtasks.storage.pending import Pending
from tests.systemtasks.entries import entry


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path), "PENDING_LIMIT": 6, "BATCH_LIMIT": 2}
    return tmp_path


@pytest.fixture
def pending() -> Iterator[Pending]:
    made = Pending()
    yield made
    made.forget()


def success(number: int, **changes: Any) -> Entry:
    return entry(f"success {number}", **changes)


def failure(number: int) -> Entry:
    return entry(f"failure {number}", state=State.FAILURE, status=Status.ERROR)


def queued(number: int) -> Entry:
    return entry(f"queued {number}", state=State.QUEUED, status=Status.UNKNOWN)


def add(pending: Pending, *entries: Entry) -> None:
    for one in entries:
        pending.add(one)


def on_disk(folder: Path) -> list[str]:
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_bytes().splitlines()]
    return sorted(decode(line).celery_id for line in lines)


def drained(pending: Pending) -> list[str]:
    """Take all batches, and return their runs. Each batch is on disk until it is done."""
    taken = []
    while batch := pending.take():
        taken += [one.record().celery_id for one in batch.entries]
        pending.done(batch)
    return taken


def test_batches_are_taken_oldest_first_and_leave_no_file(pending: Pending, folder: Path) -> None:
    add(pending, *map(success, range(5)))
    assert len(pending) == 5
    assert on_disk(folder) == [f"success {number}" for number in range(5)]
    first = pending.take()

    assert first
    assert [one.record().celery_id for one in first.entries] == ["success 0", "success 1"]
    assert len(pending) == 3
    pending.done(first)
    assert on_disk(folder) == ["success 2", "success 3", "success 4"]
    assert drained(pending) == ["success 2", "success 3", "success 4"]
    assert (on_disk(folder), pending.dropped, len(pending)) == ([], 0, 0)
    pending.tidy()
    assert list(folder.iterdir()) == []


def test_oldest_successes_go_first_one_by_one(pending: Pending, folder: Path) -> None:
    add(pending, failure(0), success(1), queued(2), success(3), success(4), failure(5))
    add(pending, success(6))
    assert pending.dropped == 1
    kept = ["failure 0", "queued 2", "success 3", "success 4", "failure 5", "success 6"]
    assert on_disk(folder) == sorted(kept)
    add(pending, failure(7), failure(8))

    kept = ["failure 0", "success 4", "failure 5", "success 6", "failure 7", "failure 8"]
    assert pending.dropped == 3
    assert len(pending) == 6
    assert on_disk(folder) == sorted(kept)
    assert drained(pending) == kept
    assert on_disk(folder) == []


def test_without_any_success_the_oldest_run_goes(pending: Pending, folder: Path) -> None:
    add(pending, *map(failure, range(7)))

    assert pending.dropped == 1
    assert on_disk(folder) == [f"failure {number}" for number in range(1, 7)]
    assert drained(pending) == [f"failure {number}" for number in range(1, 7)]


def model(entries: list[Entry], limit: int) -> list[Entry]:
    """Return the entries that are kept. Only as many are dropped as make room for the next one."""
    kept: list[Entry] = []
    for one in entries:
        if len(kept) == limit:
            kept.remove(next((old for old in kept if old.state.outcome.dropped_first), kept[0]))
        kept.append(one)
    return kept


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
@hypothesis.given(
    st.lists(st.sampled_from([success, failure, queued]), max_size=40),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
)
def test_no_more_is_dropped_than_makes_room_in_memory_and_on_disk(
    folder: Path,
    kinds: list[Callable[[int], Entry]],
    pending_limit: int,
    batch_limit: int,
    is_full: bool,
) -> None:
    entries = [make(number) for number, make in enumerate(kinds)]
    kept = model(entries, pending_limit)
    pending = Pending()
    values = {"PENDING_LIMIT": pending_limit, "BATCH_LIMIT": batch_limit}
    with (
        pytest.MonkeyPatch.context() as patch,
        override_settings(SYSTEMTASKS={"JOURNAL_DIR": str(folder), **values}),
    ):
        if is_full:
            patch.setattr(Journal, "replace", lambda _, segments, lines: segments)
        add(pending, *entries)

    assert pending.dropped == len(entries) - len(kept)
    assert len(pending) == len(kept)
    names = [one.record().celery_id for one in kept]
    assert set(names) <= set(on_disk(folder))
    if not is_full:
        assert len(on_disk(folder)) <= 2 * len(kept) + 2
    assert drained(pending) == names
    assert on_disk(folder) == []
    pending.discard()


def test_large_runs_are_in_batches_of_their_own(pending: Pending, settings: Settings) -> None:
    """Then few bytes are written again when some of them are dropped."""
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_LIMIT": 1000, "BATCH_LIMIT": 1000}
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_BYTES": 160_000}
    add(pending, *(success(number, exception="x" * 4000) for number in range(20)))
    sizes = []
    while batch := pending.take():
        sizes.append(batch.size)
        pending.done(batch)

    assert len(sizes) >= 5
    assert max(sizes) < 20_000


def test_bytes_are_bounded_too(pending: Pending, folder: Path, settings: Settings) -> None:
    size = len(success(0).line)
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_LIMIT": 100}
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_BYTES": 5 * size}
    add(pending, *map(success, range(9)))

    assert len(pending) + pending.dropped == 9
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5 * size
    assert len(pending) == 5
    assert drained(pending) == [f"success {number}" for number in range(pending.dropped, 9)]
    assert on_disk(folder) == []


def test_one_run_that_is_larger_than_the_bound_is_kept(
    pending: Pending, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_BYTES": 1000}
    add(pending, success(0), failure(1), success(2, exception="x" * 5000))

    assert drained(pending) == ["success 2"]
    assert pending.dropped == 2


def test_half_full_batch_whose_successes_went_leaves_no_file_behind(
    pending: Pending, folder: Path, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "BATCH_LIMIT": 10, "PENDING_LIMIT": 3}
    add(pending, failure(0), success(1), failure(2))
    add(pending, failure(3))
    assert on_disk(folder) == ["failure 0", "failure 2", "failure 3"]

    assert drained(pending) == ["failure 0", "failure 2", "failure 3"]
    assert on_disk(folder) == []


def test_disk_that_fails_keeps_the_bound_and_loses_nothing_of_it(
    pending: Pending, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(pending, success(0), failure(1), success(2))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    add(pending, failure(3), failure(4), failure(5), failure(6))
    monkeypatch.undo()
    add(pending, failure(7))

    assert pending.dropped == 2
    assert drained(pending) == [f"failure {number}" for number in (1, 3, 4, 5, 6, 7)]
    assert on_disk(folder) == []
