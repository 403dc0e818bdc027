"""The lines of the journal outlive its process, until they are rows."""

import os
import shutil
import signal
import socket
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EROFS, ESTALE
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.runs.journal_line import Entry, decode
from systemtasks.runs.records import RunRecord
from systemtasks.storage.folder import open_folder
from systemtasks.storage.journal import SUFFIX, Journal, line_limit
from tests.systemtasks.accounts import as_nobody, chown_to_nobody
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


def killed(act: Callable[[Journal], object]) -> None:
    """Call this in a process that is then killed."""
    if (child := os.fork()) == 0:
        try:
            act(Journal())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def in_a_child_that_is_killed(*entries: Entry) -> None:
    def write(journal: Journal) -> None:
        for one in entries:
            journal.append(one.line)

    killed(write)


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
    test_reads, child_has_forgotten = os.pipe()
    if (parent := os.fork()) == 0:
        inner = Journal()
        inner.append(entry().line)
        if os.fork() == 0:
            inner.forget()
            os.write(child_has_forgotten, b"x")
            os.close(child_may_leave)
            os.read(parent_wrote, 1)  # until the test closes its end
            os._exit(0)
        os._exit(0)
    os.waitpid(parent, 0)
    os.read(test_reads, 1)

    assert adopted(journal) == [entry().record()]
    for end in (child_may_leave, parent_wrote, test_reads, child_has_forgotten):
        os.close(end)


def test_rotated_file_takes_no_more_and_is_removed_alone(journal: Journal, folder: Path) -> None:
    journal.append(entry("1").line)
    (first,) = journal.rotate()
    journal.append(entry("2").line)
    assert [one.celery_id for one in first.records()] == ["1"]
    first.remove()

    assert [decode(path.read_bytes()).celery_id for path in folder.iterdir()] == ["2"]
    assert len(journal.rotate()) == 1
    assert journal.rotate() == []


def test_half_written_entry_is_left_out_with_a_warning(
    journal: Journal, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    whole = entry("1").line
    (folder / f"x{SUFFIX}").write_bytes(whole + b"{}\n" + whole[: len(whole) // 2])

    assert adopted(journal) == [entry("1").record()]
    assert "2 entries" in caplog.text
    assert caplog.text.count("not whole") == 1


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

    assert journal.rotate() == []
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
    (segment,) = journal.rotate()

    assert [one.celery_id for one in segment.records()] == ["1", "3"]
    assert caplog.text.count("in memory only") == 1
    assert "not whole" not in caplog.text
    segment.remove()


class StopError(Exception):
    """Raised by a signal handler, such as Celery's for a soft time limit."""


def short(written: int, error: Exception | None = None) -> Callable[[int, bytes], int]:
    """Return a function that writes this many bytes and then raises this error."""
    write = os.write

    def broken(file: int, data: bytes) -> int:
        count = write(file, data[:written])
        if error is not None:
            raise error
        return count

    return broken


LENGTH = len(entry("2").line)


@pytest.mark.parametrize("can_truncate", [True, False])
@pytest.mark.parametrize(
    ("written", "error"),
    [
        *((count, None) for count in (0, 1, LENGTH // 2, LENGTH - 1)),
        *((0, OSError(number, os.strerror(number))) for number in (ENOSPC, EDQUOT, EFBIG, EROFS)),
        *((LENGTH // 2, OSError(number, os.strerror(number))) for number in (EIO, ESTALE)),
        (LENGTH // 2, StopError()),
        (LENGTH, StopError()),
    ],
)
def test_line_after_a_failed_one_is_whole_when_the_process_is_killed(
    journal: Journal,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: int,
    error: Exception | None,
    can_truncate: bool,
) -> None:
    def work(own: Journal) -> None:
        own.append(entry("1").line)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", short(written, error))
            if not can_truncate:
                patch.setattr(os, "ftruncate", Mock(side_effect=OSError(EIO, "I/O error")))
            with suppress(StopError):
                own.append(entry("2").line)
        monkeypatch.setattr(own, "_next_try", 0.0)
        own.append(entry("3").line)
        own.append(entry("4").line)

    killed(work)
    found = {record.celery_id for record in adopted(journal)}

    # Without its newline, or when it was written before the error, the failed line can be read.
    assert found - {"2"} == {"1", "3", "4"}
    assert "2" not in found or not can_truncate
    assert list(folder.iterdir()) == []


def test_file_that_could_not_be_shortened_and_the_next_are_of_one_batch(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(entry("1").line)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short(10))
        patch.setattr(os, "ftruncate", Mock(side_effect=OSError(EIO, "I/O error")))
        journal.append(entry("2").line)
    monkeypatch.setattr(journal, "_next_try", 0.0)
    journal.append(entry("3").line)
    first, second = journal.rotate()

    assert [one.celery_id for one in first.records()] == ["1"]
    assert [one.celery_id for one in second.records()] == ["3"]
    journal.release(first)  # which empties it
    journal.append(entry("4").line)
    (again,) = journal.rotate()
    assert [one.celery_id for one in again.records()] == ["4"]
    second.remove()
    again.remove()


def deleted(path: Path, _: Journal) -> None:
    path.unlink()


def deleted_with_its_folder(path: Path, _: Journal) -> None:
    shutil.rmtree(path.parent)


def replaced(path: Path, _: Journal) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def emptied(path: Path, _: Journal) -> None:
    os.truncate(path, 0)


def descriptor_closed(_: Path, journal: Journal) -> None:
    os.close(journal._segments[-1]._descriptor)


def descriptor_of_another_file(path: Path, journal: Journal) -> None:
    other = os.open(path.parent.parent / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, journal._segments[-1]._descriptor)
    os.close(other)


@pytest.mark.parametrize(
    "happen",
    [
        *(deleted, deleted_with_its_folder, replaced, emptied),
        *(descriptor_closed, descriptor_of_another_file),
    ],
)
def test_line_after_the_file_has_gone_is_in_another_one(
    journal: Journal,
    folder: Path,
    happen: Callable[[Path, Journal], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("systemtasks.storage.journal.LOOK_INTERVAL", 0.0)

    def work(own: Journal) -> None:
        own.append(entry("1").line)
        (path,) = folder.iterdir()
        happen(path, own)
        own.append(entry("2").line)
        own.append(entry("3").line)
        for segment in own.rotate():
            own.release(segment)
        own.append(entry("4").line)

    killed(work)
    other = folder.parent / "other"

    assert "4" in {record.celery_id for record in adopted(journal)}
    assert not other.exists() or other.read_bytes() == b""


@pytest.mark.parametrize("happen", [deleted, replaced, descriptor_closed])
def test_line_after_the_file_has_gone_is_soon_on_disk(
    journal: Journal, folder: Path, happen: Callable[[Path, Journal], None]
) -> None:
    journal.append(entry("1").line)
    (path,) = folder.iterdir()
    happen(path, journal)

    def is_on_disk() -> bool:
        journal.append(entry("2").line)
        lines = [line for path in folder.iterdir() for line in path.read_bytes().splitlines()]
        return "2" in {decode(line).celery_id for line in lines}

    assert eventually(is_on_disk, 10)


def test_file_whose_lines_are_committed_takes_the_next_ones(journal: Journal, folder: Path) -> None:
    names = set()
    for number in range(5):
        journal.append(entry(str(number)).line)
        (path,) = folder.iterdir()
        names.add(path)
        lines = path.read_bytes().splitlines()
        assert [one.celery_id for one in map(decode, lines)] == [str(number)]
        (segment,) = journal.rotate()
        journal.release(segment)

    assert len(names) == 1
    journal.tidy()
    assert list(folder.iterdir()) == []


def test_file_that_somebody_has_deleted_is_not_written_to_again(
    journal: Journal, folder: Path
) -> None:
    for number in range(2):
        journal.append(entry(str(number)).line)
        (segment,) = journal.rotate()
        if number:
            segment.path.unlink()
        journal.release(segment)
        for path in folder.iterdir():
            path.unlink()
    journal.append(entry("next").line)

    (path,) = folder.iterdir()
    assert decode(path.read_bytes()).celery_id == "next"


def test_empty_file_of_a_killed_process_is_deleted_by_the_next(
    journal: Journal, folder: Path
) -> None:
    if (child := os.fork()) == 0:
        own = Journal()
        own.append(entry().line)
        own.release(*own.rotate())
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
    assert [decode(path.read_bytes()).celery_id for path in folder.iterdir()] == ["left"]
    assert caplog.text.count("in memory only") == 1


# Other files in the folder


def forged(celery_id: str = "forged") -> bytes:
    return entry(celery_id, args='["attacker"]').line


def hard_link(path: Path) -> None:
    (path.parent / "other").write_bytes(forged())
    path.hardlink_to(path.parent / "other")


def link(path: Path) -> None:
    (path.parent / "other").write_bytes(forged())
    path.symlink_to(path.parent / "other")


def link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero, which has no end
    except PermissionError:
        pytest.skip("only root may make a device")


def folder_of_that_name(path: Path) -> None:
    path.mkdir()


def of_another_account(path: Path) -> None:
    path.write_bytes(forged())
    chown_to_nobody(path)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)


INTRUDERS = (
    *(link, link_that_leads_nowhere, link_to_a_folder, hard_link, fifo, socket_file, device),
    *(folder_of_that_name, of_another_account, sparse),
)


def in_time(function: Callable[[], object]) -> None:
    """Call the function. Assert that it does not block."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("make", INTRUDERS)
def test_what_no_journal_makes_is_left_alone_and_keeps_nobody_waiting(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], None],
) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.chdir(folder)  # a socket's path has to be short
    make(Path(f"a{SUFFIX}"))
    for name in ("0", "b"):
        (folder / f"{name}{SUFFIX}").write_bytes(entry(name).line)
    found: list[RunRecord] = []
    journal = Journal()
    tracemalloc.start()
    for _ in range(2):
        in_time(lambda: found.extend(adopted(journal)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [record.celery_id for record in found] == ["0", "b"]
    assert os.path.lexists(folder / f"a{SUFFIX}")
    assert caplog.text.count("is left alone") == 1
    assert peak < 2**20


def test_line_without_an_end_is_left_out_in_pieces(folder: Path, journal: Journal) -> None:
    """The line consists of zeros, as after a crash of a file system that had extended the file."""
    folder.mkdir(mode=0o700)
    path = folder / f"a{SUFFIX}"
    path.write_bytes(entry("1").line)
    os.truncate(path, 60_000_000)
    with path.open("ab") as file:
        file.write(b"\n" + entry("2").line)
    tracemalloc.start()
    records = adopted(journal)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert records == [entry("1").record(), entry("2").record()]
    assert peak < 3 * line_limit()


def test_file_that_grows_while_it_is_read_ends_where_it_did(folder: Path, journal: Journal) -> None:
    folder.mkdir(mode=0o700)
    path = folder / f"a{SUFFIX}"
    path.write_bytes(entry("0").line * 1000)
    (segment,) = journal.abandoned()
    found = 0
    for _ in segment.records():
        found += 1
        with path.open("ab") as file:
            file.write(entry("more").line)

    assert found == 1000
    segment.remove()


@pytest.mark.parametrize("already_there", [True, False])
def test_other_accounts_line_is_never_believed(
    settings: Settings, shared: Path, caplog: pytest.LogCaptureFixture, already_there: bool
) -> None:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(shared / "journal")}
    if already_there:
        (shared / "journal").mkdir()
        (shared / "journal").chmod(0o777)

    def forge() -> None:
        (shared / "journal").mkdir(exist_ok=True)
        (shared / "journal" / f"1-0{SUFFIX}").write_bytes(forged())

    as_nobody(forge)
    journal = Journal()
    for number in range(3):
        journal.append(entry(str(number)).line)

    assert adopted(journal) == []
    assert [path.read_bytes() for path in (shared / "journal").iterdir()] == [forged()]
    assert caplog.text.count("in memory only") == 1


def test_other_account_can_neither_read_nor_lock_a_file(settings: Settings, shared: Path) -> None:
    """Even if it may enter the folder."""
    (shared / "journal").mkdir(mode=0o755)
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(shared / "journal")}
    journal = Journal()
    journal.append(entry().line)
    (path,) = (shared / "journal").iterdir()

    def look() -> None:
        assert os.listdir(path.parent)  # noqa: PTH208
        with pytest.raises(PermissionError):
            path.open()

    as_nobody(look)
    journal.forget()


def test_folder_that_is_refused_is_not_asked_for_at_each_line(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    asked = Mock(wraps=open_folder)
    monkeypatch.setattr("systemtasks.storage.journal.open_folder", asked)
    for number in range(100):
        journal.append(entry(str(number)).line)

    assert asked.call_count == 1
    assert list(folder.iterdir()) == []
