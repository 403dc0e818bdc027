"""The beginning of a run is on disk until its end is, even if its process is killed."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.runs.arguments import Arguments
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord, TaskInfo
from systemtasks.states import State
from systemtasks.storage import leases
from systemtasks.storage.beginnings import SLOT, SLOT_LIMIT, Beginnings, Slots
from systemtasks.storage.journal import Journal
from tests.systemtasks.runs.test_recorder import INFO, LEASE


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path / "journal")}
    return tmp_path / "journal"


@pytest.fixture
def beginnings() -> Iterator[Beginnings]:
    made = Beginnings()
    yield made
    made.close()


def run(
    celery_id: object = "id-1", *, args: str = "[7]", task: TaskInfo = INFO, **more: Any
) -> Run:
    request = {"id": celery_id, "hostname": "celery@host", **more}
    return Run(task, request, Arguments(args, "{}", True, "7"), LEASE)


def killed(act: Callable[[Beginnings], object]) -> None:
    """Call this in a process that is then killed."""
    if (child := os.fork()) == 0:
        try:
            act(Beginnings())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def adopted() -> list[RunRecord]:
    found = []
    for file in Journal().abandoned(Slots):
        found += list(file.records())
        file.remove()
    return found


def ids() -> list[str]:
    return [record.celery_id for record in adopted()]


def test_beginning_says_what_ran_where_and_when(folder: Path) -> None:
    begun = run(retries=2, delivery_info={"routing_key": "mail"}, systemtasks_sent=1.5)
    killed(lambda own: own.add(begun))
    (record,) = adopted()
    expected = replace(begun.in_progress().record(), is_beginning=True, is_gone=True)

    assert record == expected
    assert (record.state, record.queue, record.args, record.uid) == (
        State.RUNNING,
        "mail",
        "[7]",
        "7",
    )
    assert (record.attempt, record.lease, record.finish_timestamp) == (3, LEASE, None)
    assert list(folder.iterdir()) == []


def test_run_that_has_ended_is_no_longer_there(folder: Path) -> None:
    def work(own: Beginnings) -> None:
        one, two, three, four = map(run, "1234")
        own.add(one)
        own.add(two)
        own.remove(one)
        own.add(three)
        own.remove(two)
        own.remove(two)
        own.remove(four)

    killed(work)
    assert ids() == ["3"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.sets(st.integers(0, 29)))
def test_runs_in_progress_are_there_whatever_began_and_ended(
    beginnings: Beginnings, folder: Path, numbers: list[int], tidied: set[int]
) -> None:
    """Each number begins a run of this number, or ends it."""
    running: dict[int, Run] = {}
    for step, number in enumerate(numbers):
        if number in running:
            beginnings.remove(running.pop(number))
        else:
            running[number] = run(f"{step} {number}", args=f'["{"x" * 500 * number}"]')
            beginnings.add(running[number])
        if step in tidied:
            beginnings.tidy()
    file = beginnings._file

    found = [] if file is None else [record.celery_id for record in file.records()]
    assert sorted(found) == sorted(one.celery_id for one in running.values())
    assert not running or file
    assert file is None or file.path.stat().st_size <= 6 * SLOT
    beginnings.discard()
    assert not folder.exists() or list(folder.iterdir()) == []


def test_arguments_that_do_not_fit_are_left_out() -> None:
    info = replace(INFO, description="x" * 5000)
    killed(lambda own: own.add(run(args=f'["{"x" * SLOT}"]', task=info, origin="y" * 4000)))
    (record,) = adopted()

    assert (record.celery_id, record.name, record.uid) == ("id-1", "shop.charge", "7")
    assert (record.args, record.kwargs, record.arguments_intact) == (None, None, False)
    assert record.sender == "y" * 255


def test_run_whose_every_text_is_too_long_is_left_out_and_harms_no_other() -> None:
    long: dict[str, Any] = dict.fromkeys(("root_id", "parent_id", "origin"), "\x01" * 300)

    def work(own: Beginnings) -> None:
        own.add(run("\x01" * 300, **long))
        own.add(run("2"))

    killed(work)
    assert ids() == ["2"]


def test_more_runs_at_once_than_there_are_slots_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SLOT_LIMIT > 100
    monkeypatch.setattr("systemtasks.storage.beginnings.SLOT_LIMIT", 3)

    def work(own: Beginnings) -> None:
        runs = list(map(run, "12345"))
        for one in runs:
            own.add(one)
        for one in runs[1:]:
            own.remove(one)
        own.add(run("6"))

    killed(work)
    assert sorted(ids()) == ["1", "6"]


def test_file_is_empty_once_no_run_is_in_progress(beginnings: Beginnings, folder: Path) -> None:
    one, two = run("1"), run("2")
    beginnings.add(one)
    beginnings.add(two)
    beginnings.remove(one)
    beginnings.tidy()
    (path,) = folder.iterdir()
    assert path.stat().st_size > SLOT
    beginnings.delete()
    assert path.exists()
    beginnings.remove(two)
    beginnings.tidy()

    assert path.stat().st_size == 0
    assert path.stat().st_mode & 0o777 == 0o600
    beginnings.delete()
    assert list(folder.iterdir()) == []


def test_living_process_keeps_its_runs(beginnings: Beginnings) -> None:
    beginnings.add(run())

    assert adopted() == []


def test_forked_child_neither_ends_nor_keeps_its_parents_runs(beginnings: Beginnings) -> None:
    begun = run("of the parent")
    beginnings.add(begun)

    def work(_: Beginnings) -> None:
        beginnings.close()
        beginnings.remove(begun)
        beginnings.add(run("of the child"))

    killed(work)
    assert ids() == ["of the child"]
    assert beginnings._file
    assert [one.celery_id for one in beginnings._file.records()] == ["of the parent"]


@pytest.mark.parametrize("is_of_own_lease", [True, False])
def test_run_of_a_child_of_the_same_worker_is_left_to_its_main_process(
    is_of_own_lease: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leases.Lease(LEASE if is_of_own_lease else str(uuid4()), os.getppid(), worker=True)
    monkeypatch.setattr(leases, "_lease", lease)
    killed(lambda own: own.add(run()))
    (record,) = adopted()

    assert record.is_beginning
    assert record.is_gone is not is_of_own_lease


def test_disk_that_fails_is_logged_once_and_tried_again_later(
    beginnings: Beginnings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write = os.pwrite
    full = Mock(side_effect=OSError(ENOSPC, "No space left on device"))
    monkeypatch.setattr(os, "pwrite", full)
    for number in range(3):
        beginnings.add(run(str(number)))
    monkeypatch.setattr(os, "pwrite", write)
    one = run("after")
    beginnings.add(one)

    assert caplog.text.count("Runs that begin are not in the journal") == 1
    assert beginnings._file
    assert [record.celery_id for record in beginnings._file.records()] == ["after"]
    beginnings.remove(one)
    beginnings.tidy()
    assert [path.stat().st_size for path in folder.iterdir()] == [0]


@pytest.mark.parametrize("length", [0, 1, 100])
def test_half_written_slot_is_left_out(beginnings: Beginnings, length: int) -> None:
    write = os.pwrite
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:length], at))
        beginnings.add(run("half"))
    assert beginnings._file
    assert list(beginnings._file.records()) == []
    beginnings.add(run("whole"))

    assert [record.celery_id for record in beginnings._file.records()] == ["whole"]


def deleted(path: Path, _: Beginnings) -> None:
    path.unlink()


def deleted_with_its_folder(path: Path, _: Beginnings) -> None:
    shutil.rmtree(path.parent)


def descriptor_of_another_file(path: Path, beginnings: Beginnings) -> None:
    other = os.open(path.parent.parent / "other", os.O_RDWR | os.O_CREAT)
    assert beginnings._file
    os.dup2(other, beginnings._file._descriptor)
    os.close(other)


@pytest.mark.parametrize("happen", [deleted, deleted_with_its_folder, descriptor_of_another_file])
def test_file_that_has_gone_is_made_anew(
    folder: Path, happen: Callable[[Path, Beginnings], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("systemtasks.storage.journal.LOOK_INTERVAL", 0.0)

    def work(own: Beginnings) -> None:
        runs = list(map(run, "12345"))
        for one in runs[:3]:
            own.add(one)
        (path,) = folder.iterdir()
        happen(path, own)
        own.remove(runs[1])
        for one in runs[3:]:
            own.add(one)

    killed(work)
    assert {"4", "5"} <= set(ids())
    other = folder.parent / "other"
    assert not other.exists() or other.read_bytes() == b""


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=3 * SLOT))
def test_no_bytes_break_the_reader(folder: Path, junk: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    slots = -(-len(junk) // SLOT)
    (folder / f"junk{Slots.suffix}").write_bytes(
        junk.ljust(slots * SLOT, b"\n") + run("whole").in_progress().line
    )

    assert ids()[-1:] == ["whole"]
