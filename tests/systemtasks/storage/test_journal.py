"""What is in the journal outlives its process, and leaves it only as a row."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.runs.entries import Entry
from systemtasks.runs.reading import read
from systemtasks.runs.records import RunRecord
from systemtasks.storage.journal import SUFFIX, Journal
from tests.systemtasks.entries import entry
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path / "journal")}
    return tmp_path / "journal"


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal()
    yield made
    made.forget()


def in_a_child_that_is_killed(*entries: Entry) -> None:
    if (child := os.fork()) == 0:
        journal = Journal()
        for one in entries:
            journal.append(one.line)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def adopted(journal: Journal) -> list[RunRecord]:
    found = []
    for segment in journal.abandoned():
        found += list(segment.records())
        segment.remove()
    return found


def test_record_is_on_disk_when_append_returns(journal: Journal, folder: Path) -> None:
    journal.append(entry().line)
    (path,) = folder.iterdir()

    assert path.read_bytes() == entry().line
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_killed_process_is_inherited_from_once(journal: Journal, folder: Path) -> None:
    in_a_child_that_is_killed(entry("1"), entry("2"))

    assert adopted(journal) == [entry("1").record(), entry("2").record()]
    assert adopted(journal) == []
    assert list(folder.iterdir()) == []


def test_orphan_belongs_to_whoever_found_it_first(journal: Journal) -> None:
    in_a_child_that_is_killed(entry())
    (first,) = journal.abandoned()

    assert list(Journal().abandoned()) == []
    first.close()
    (second,) = Journal().abandoned()
    second.remove()


def test_living_process_is_no_orphan(journal: Journal) -> None:
    journal.append(entry().line)

    assert list(Journal().abandoned()) == []


def test_forked_child_does_not_keep_its_parents_file(journal: Journal) -> None:
    parent_wrote, child_may_leave = os.pipe()
    if (parent := os.fork()) == 0:
        inner = Journal()
        inner.append(entry().line)
        if os.fork() == 0:
            inner.forget()
            os.close(child_may_leave)
            os.read(parent_wrote, 1)  # until the test closes its end
            os._exit(0)
        os._exit(0)
    os.waitpid(parent, 0)
    found: list[RunRecord] = []

    def adopt() -> bool:
        found.extend(adopted(journal))
        return bool(found)

    assert eventually(adopt)
    assert found == [entry().record()]
    os.close(child_may_leave)
    os.close(parent_wrote)


def test_rotated_file_takes_no_more_and_is_removed_alone(journal: Journal, folder: Path) -> None:
    journal.append(entry("1").line)
    first = journal.rotate()
    journal.append(entry("2").line)
    assert first
    assert [one.celery_id for one in first.records()] == ["1"]
    first.remove()

    assert [read(path.read_bytes()).celery_id for path in folder.iterdir()] == ["2"]
    assert journal.rotate() is not None
    assert journal.rotate() is None


def test_half_written_entry_is_left_out_with_a_warning(
    journal: Journal, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    whole = entry("1").line
    (folder / f"x{SUFFIX}").write_bytes(whole + b"{}\n" + whole[: len(whole) // 2])

    assert adopted(journal) == [entry("1").record()]
    assert len([entry for entry in caplog.records if "not whole" in entry.getMessage()]) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_whatever_break_the_reader(journal: Journal, folder: Path, junk: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"junk{SUFFIX}").write_bytes(junk + b"\n" + entry("1").line)

    assert adopted(journal)[-1] == entry("1").record()


def test_disk_that_fails_is_said_once_and_raises_nothing(
    journal: Journal, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file where the folder should be")
    for number in range(3):
        journal.append(entry(str(number)).line)

    assert journal.rotate() is None
    said = [entry for entry in caplog.records if "in memory only" in entry.getMessage()]
    assert len(said) == 1


def test_full_disk_is_said_and_spoils_no_other_entry(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append(entry("1").line)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    journal.append(entry("2").line)
    monkeypatch.undo()
    journal.append(entry("3").line)
    segment = journal.rotate()

    assert segment
    assert [one.celery_id for one in segment.records()] == ["1", "3"]
    assert "in memory only" in caplog.text
    segment.remove()


def test_file_whose_lines_are_committed_takes_the_next_ones(journal: Journal, folder: Path) -> None:
    names = set()
    for number in range(5):
        journal.append(entry(str(number)).line)
        (path,) = folder.iterdir()
        names.add(path)
        assert [one.celery_id for one in map(read, path.read_bytes().splitlines())] == [str(number)]
        segment = journal.rotate()
        assert segment
        journal.release(segment)

    assert len(names) == 1
    journal.tidy()
    assert list(folder.iterdir()) == []


def test_file_that_somebody_has_deleted_is_not_written_to_again(
    journal: Journal, folder: Path
) -> None:
    for number in range(2):
        journal.append(entry(str(number)).line)
        segment = journal.rotate()
        assert segment
        if number:
            segment.path.unlink()
        journal.release(segment)
        for path in folder.iterdir():
            path.unlink()
    journal.append(entry("next").line)

    (path,) = folder.iterdir()
    assert read(path.read_bytes()).celery_id == "next"


def test_empty_file_of_a_killed_process_is_deleted_by_the_next(
    journal: Journal, folder: Path
) -> None:
    if (child := os.fork()) == 0:
        own = Journal()
        own.append(entry().line)
        own.release(own.rotate())  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1

    assert adopted(journal) == []
    assert list(folder.iterdir()) == []


def test_disk_without_locks_keeps_its_files_and_says_so(
    journal: Journal,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    in_a_child_that_is_killed(entry("left"))
    monkeypatch.setattr("fcntl.flock", no_locks)
    journal.append(entry("1").line)
    journal.append(entry("2").line)

    assert adopted(journal) == []
    assert [read(path.read_bytes()).celery_id for path in folder.iterdir()] == ["left"]
    assert caplog.text.count("in memory only") == 1
