"""Batches of finished runs become rows: whole, once, and never older over newer."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from psycopg.errors import UniqueViolation
from pytest_django import Settings

from systemtasks.ids import system_task_uuid
from systemtasks.models import SearchChange, SearchText, SystemTask, TaskRun
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import RUN_HEADER
from systemtasks.runs.records import KnownTask, RunRecord
from systemtasks.states import State, Status
from systemtasks.storage import leases, rows
from systemtasks.storage.beginnings import Beginnings
from systemtasks.storage.failures import Failures
from systemtasks.storage.journal import SUFFIX, Journal
from systemtasks.storage.rows import write
from systemtasks.storage.writer import Writer
from tests.systemtasks.accounts import chown_to_nobody
from tests.systemtasks.entries import NOON, entry, record
from tests.systemtasks.runs.test_recorder import begin
from tests.waiting import eventually


def queued(celery_id: str) -> RunRecord:
    return record(
        celery_id,
        state=State.QUEUED,
        status=Status.UNKNOWN,
        start_timestamp=None,
        finish_timestamp=None,
        wait=None,
        duration=None,
        messages="[]",
    )


@pytest.fixture(autouse=True)
def journal_folder(settings: Settings, tmp_path: Path) -> Path:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path / "journal")}
    return tmp_path / "journal"


@pytest.fixture
def batch_writer(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Writer]:
    """Yield a writer with a thread, as in a process that does not run tests."""
    monkeypatch.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
    made = Writer()
    yield made
    thread = made._thread._thread
    monkeypatch.undo()
    if thread is not None:
        assert_ends(made, thread)


def assert_ends(made: Writer, thread: threading.Thread) -> None:
    """Wake the thread, and assert that it ends, because the process now runs tests."""
    made._hurry.set()
    made._work.set()
    thread.join(10)
    assert not thread.is_alive()


def test_texts_for_the_search_follow_what_is_written(batch_writer: Writer) -> None:
    for name in ("first", "second"):
        batch_writer.submit(entry(name=name))
        assert batch_writer.flush()
    documents = SearchText.objects.values_list("document", flat=True)
    eventually(lambda: {text.split("\n")[0] for text in documents.all()} == {"FIRST", "SECOND"})
    assert not SearchChange.objects.exists()


@pytest.mark.django_db
def test_every_field_of_a_record_reaches_both_rows() -> None:
    write([record()])

    run = TaskRun.objects.get()
    written = record()
    for name in (
        "celery_id",
        "attempt",
        "state",
        "status",
        "queue",
        "worker",
        "sent_timestamp",
        "start_timestamp",
        "finish_timestamp",
        "wait",
        "duration",
        "arguments_intact",
        "exception",
        "expires",
    ):
        assert getattr(run, name) == getattr(written, name), name
    assert (run.args, run.kwargs, run.messages) == ([1, "zwei"], {}, [{"event": "Grüße"}])

    task = SystemTask.objects.get()
    assert task == run.system_task
    assert task.uuid == system_task_uuid("shop.charge")
    assert (task.name, task.uid, task.description) == ("shop.charge", "", "Charge.")
    assert (task.status, task.duration) == ("successful", 1.5)
    assert task.start_timestamp == NOON
    assert task.finish_timestamp == NOON + timedelta(seconds=1.5)
    assert task.messages == [{"event": "Grüße"}]
    assert task.expires == written.expires


@pytest.mark.django_db
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("newest_first", [True, False])
def test_the_latest_run_stands_whatever_the_order(together: bool, newest_first: bool) -> None:
    old = record("old", status=Status.ERROR, state=State.FAILURE)
    new = record("new", start=NOON + timedelta(seconds=1))
    records = [new, old] if newest_first else [old, new]
    for batch in [records] if together else [[one] for one in records]:
        write(batch)

    assert SystemTask.objects.get().status == Status.SUCCESSFUL
    assert TaskRun.objects.count() == 2


@pytest.mark.django_db
def test_the_latest_run_stands_where_its_sending_is_in_the_same_batch() -> None:
    new = record("new", start=NOON + timedelta(seconds=1))
    write([queued("new"), record("old", status=Status.ERROR, state=State.FAILURE), new])

    assert SystemTask.objects.get().status == Status.SUCCESSFUL
    assert TaskRun.objects.get(celery_id="new").state == State.SUCCESS


@pytest.mark.django_db
def test_replaying_changes_nothing() -> None:
    write([record()])
    before = list(TaskRun.objects.values()), list(SystemTask.objects.values())
    write([record(), record()])

    assert (list(TaskRun.objects.values()), list(SystemTask.objects.values())) == before


@pytest.mark.django_db
def test_each_attempt_is_a_row() -> None:
    write([record(attempt=1), record(attempt=2), record(attempt=3)])

    assert list(TaskRun.objects.order_by("attempt").values_list("attempt", flat=True)) == [1, 2, 3]


@pytest.mark.django_db
def test_uid_makes_another_task() -> None:
    write([record("a"), record("b", uid="ldap"), record("c", uid="saml")])

    assert sorted(task.full_name for task in SystemTask.objects.all()) == [
        "shop.charge",
        "shop.charge:ldap",
        "shop.charge:saml",
    ]


@pytest.mark.django_db
def test_a_batch_takes_two_statements(django_assert_num_queries: Any) -> None:
    # Inside the test's transaction the writer's own is a savepoint: two more statements.
    with django_assert_num_queries(4):
        write([record(str(number), name=f"task-{number % 10}") for number in range(100)])


def test_submitted_records_are_written_by_another_thread(batch_writer: Writer) -> None:
    for number in range(50):
        batch_writer.submit(entry(str(number)))

    assert batch_writer.flush()
    assert TaskRun.objects.count() == 50


def test_records_appear_without_a_flush(batch_writer: Writer) -> None:
    batch_writer.submit(entry())

    assert eventually(TaskRun.objects.exists)


def test_batches_that_wait_are_written_one_after_the_other(
    batch_writer: Writer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "BATCH_LIMIT": 1}
    monkeypatch.setattr("systemtasks.storage.writer._housekeeping_interval", lambda: 3600.0)
    for number in range(5):
        batch_writer.submit(entry(f"id-{number}"))
    assert eventually(lambda: TaskRun.objects.count() == 5)


def test_bad_record_stands_alone_and_its_neighbours_are_written(
    batch_writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        changes: dict[str, Any] = {}
        if number == 7:
            changes["messages"] = '[{"event": "\\u0000"}]'
        if number == 13:
            changes["duration"] = -1.0
        batch_writer.submit(entry(str(number), **changes))
    assert batch_writer.flush()

    written = set(TaskRun.objects.values_list("celery_id", flat=True))
    assert written == {str(number) for number in range(20)} - {"13"}
    bare = TaskRun.objects.get(celery_id="7")
    assert (bare.state, bare.args, bare.duration) == ("success", None, 1.5)
    assert bare.exception == "The messages and arguments of this run cannot be recorded: DataError"
    assert [message["event"] for message in bare.messages] == [bare.exception]
    failures = [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"]
    assert any("run 7 of shop.charge is recorded in part" in failure for failure in failures)
    assert any("run 13 of shop.charge is not recorded" in failure for failure in failures)


def test_records_wait_while_the_database_is_away(
    batch_writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = threading.Event()
    tried = threading.Semaphore(0)

    def failing(records: list[RunRecord]) -> None:
        if not away.is_set():
            tried.release()
            raise OperationalError("server closed the connection")
        write(records)

    monkeypatch.setattr(rows, "write", failing)
    batch_writer.submit(entry("1"))
    for _ in range(2):
        assert tried.acquire(timeout=10)
    batch_writer.submit(entry("2"))
    assert not batch_writer.flush(timeout=0.05)
    assert "2 task runs stay in the journal" in caplog.text
    away.set()

    assert batch_writer.flush(timeout=10)
    assert TaskRun.objects.count() == 2
    said = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(said) == 2
    assert "server closed the connection" in said[0]
    assert "recorded again" in said[1]


def test_a_batch_that_waits_is_reported_again_with_how_many_wait_and_since_when(
    batch_writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = threading.Event()
    monkeypatch.setattr("systemtasks.storage.writer.REPORT_INTERVAL", 0.0)

    def failing(records: list[RunRecord]) -> None:
        if not away.is_set():
            raise OperationalError("server closed the connection")
        write(records)

    monkeypatch.setattr(rows, "write", failing)
    for number in range(3):
        batch_writer.submit(entry(str(number)))

    def reports() -> list[str]:
        return [text for record in caplog.records if "wait" in (text := record.getMessage())]

    assert eventually(lambda: len(reports()) >= 2)
    assert "(server closed the connection); 3 since 20" in reports()[-1]
    away.set()
    assert batch_writer.flush(timeout=10)


def test_a_fault_in_one_step_of_the_housekeeping_is_logged_and_counted_and_the_next_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
    mine = Failures()
    monkeypatch.setattr("systemtasks.storage.writer.failures", mine)
    writer, deleted = Writer(), []

    def broken() -> bool:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(writer._renewal, "renew", broken)
    monkeypatch.setattr(writer._retention, "delete", lambda: deleted.append(1))
    writer._housekeep()

    assert deleted == [1]
    assert "LookupError: a fault of ours" in caplog.text
    assert mine.counts() == {"housekeeping, in keep_leases": 1}


def test_housekeeping_that_finds_the_database_away_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
    mine = Failures()
    monkeypatch.setattr("systemtasks.storage.writer.failures", mine)
    writer = Writer()

    def away() -> bool:
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(writer._renewal, "renew", away)
    with caplog.at_level("INFO"):
        writer._housekeep()

    assert caplog.text == ""
    assert mine.counts() == {}


def test_what_has_no_room_is_dropped_and_recorded(
    batch_writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "PENDING_LIMIT": 3, "BATCH_LIMIT": 1}
    taken, back = threading.Event(), threading.Event()

    def waiting(records: list[RunRecord]) -> None:
        taken.set()
        assert back.wait(10)
        write(records)

    monkeypatch.setattr(rows, "write", waiting)
    batch_writer.submit(entry("in the batch"))
    assert taken.wait(10)
    batch_writer.submit(entry("failure", state=State.FAILURE, status=Status.ERROR))
    for number in range(4):
        batch_writer.submit(entry(f"success {number}"))
    back.set()
    assert batch_writer.flush(timeout=10)

    written = TaskRun.objects.filter(system_task__name="shop.charge")
    assert set(written.values_list("celery_id", flat=True)) == {
        "in the batch",
        "failure",
        "success 2",
        "success 3",
    }
    # It is there when flush returns, after which the process may end.
    said = SystemTask.objects.get(name="systemtasks.writer")
    assert said.status == "error"
    assert said.messages[0]["event"].startswith("2 task runs are not recorded")


def test_concurrent_writers_of_the_same_tasks_do_not_deadlock(
    transactional_db: None,
) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(20):
                names = [f"task-{n}" for n in range(20)]
                if number % 2:
                    names.reverse()
                start = NOON + timedelta(seconds=round_)
                write([record(f"{number}-{round_}-{n}", name=n, start=start) for n in names])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert TaskRun.objects.count() == 4 * 20 * 20
    assert SystemTask.objects.count() == 20


def test_run_that_is_sent_does_not_wait_for_the_end_of_another_of_its_task(
    transactional_db: None,
) -> None:
    """Otherwise there is a deadlock if the other transaction, too, writes the run that is sent."""
    write([record()])
    written = threading.Event()

    def send() -> None:
        write([queued("sent")])
        connection.close()
        written.set()

    sender = threading.Thread(target=send)
    with transaction.atomic():
        write([record(start=NOON + timedelta(seconds=1))])
        sender.start()
        waited = not written.wait(10)
    sender.join()

    assert not waited


@pytest.mark.django_db
def test_new_task_that_another_process_inserts_at_the_same_moment_is_updated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_transaction = rows._write
    calls = []

    def refused_at_first(records: Any) -> None:
        calls.append(records)
        if len(calls) == 1:
            raise IntegrityError from UniqueViolation("systemtask_name_uid")
        in_transaction(records)

    monkeypatch.setattr(rows, "_write", refused_at_first)
    write([record()])

    assert len(calls) == 2
    assert TaskRun.objects.count() == 1


def test_forked_child_begins_with_nothing_pending(batch_writer: Writer) -> None:
    batch_writer._pending.add(entry("the parent's"))
    batch_writer.reset()

    assert batch_writer.flush()
    assert not TaskRun.objects.exists()


def test_orphaned_runs_are_looked_for_when_a_lease_has_been_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
    monkeypatch.setattr(leases, "_lease", None)
    monkeypatch.setattr(rows, "renew_lease", lambda _: calls.append("renewed"))
    writer = Writer()
    monkeypatch.setattr(writer._reaper, "reap", lambda: calls.append("reaped"))
    writer._housekeep()
    assert calls == []  # it has no lease
    leases.take()
    for _ in range(2):
        writer._next_housekeeping = 0
        writer._housekeep()

    assert calls == ["renewed", "reaped"]


def test_announced_tasks_have_rows_and_bad_ones_keep_nothing_from_its_work(
    batch_writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    batch_writer.announce([KnownTask("")])
    assert eventually(lambda: "have not run yet are not recorded" in caplog.text)
    batch_writer.announce([KnownTask("shop.refund")])

    assert eventually(SystemTask.objects.filter(name="shop.refund").exists)


def test_process_that_runs_tests_has_no_thread_and_no_journal(journal_folder: Path) -> None:
    writer = Writer()
    writer.submit(entry())
    writer.start()
    writer.announce([KnownTask("shop.refund")])

    assert writer.flush(timeout=0)
    assert not writer._thread.is_alive
    assert not journal_folder.exists()


def test_thread_that_runs_when_tests_begin_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, journal_folder: Path, transactional_db: None
) -> None:
    tried = threading.Event()

    def failing(_records: list[RunRecord]) -> None:
        tried.set()
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(rows, "write", failing)
    with monkeypatch.context() as real:
        real.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
        writer = Writer()
        writer.submit(entry("1"))
        assert tried.wait(10)
        writer.submit(entry("2"))
        assert len([*journal_folder.iterdir()]) == 2
        thread = writer._thread._thread
    assert thread
    thread.join(10)

    assert not thread.is_alive()
    assert [*journal_folder.iterdir()] == []
    assert not TaskRun.objects.exists()


def test_process_that_runs_tests_does_not_wait_for_the_database_as_it_ends(
    monkeypatch: pytest.MonkeyPatch, journal_folder: Path
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(rows, "write", lambda _records: go_on.wait(30))
    with monkeypatch.context() as real:
        real.setattr("systemtasks.storage.writer.is_under_test", lambda: False)
        writer = Writer()
        writer.submit(entry("1"))
        assert eventually(lambda: writer._in_flight is not None)
        writer.submit(entry("2"))
        thread = writer._thread._thread
    assert thread
    begin = time.monotonic()
    writer.flush_at_exit()

    assert time.monotonic() - begin < 4  # FLUSH_TIMEOUT is 5
    assert [*journal_folder.iterdir()] == []
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()


def test_line_of_another_account_becomes_no_row(
    batch_writer: Writer, journal_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal_folder.mkdir(mode=0o700)
    path = journal_folder / f"1-0{SUFFIX}"
    path.write_bytes(entry("forged", args='["attacker"]').line)
    chown_to_nobody(path)
    (journal_folder / f"1-1{SUFFIX}").write_bytes(entry("own").line)
    batch_writer._write_abandoned()

    assert [run.celery_id for run in TaskRun.objects.all()] == ["own"]
    assert "belongs to another account" in caplog.text


def test_run_that_had_begun_in_a_killed_process_is_ended_by_the_next_one(
    batch_writer: Writer, journal_folder: Path
) -> None:
    write([queued("id-1")])
    connection.close()
    if (child := os.fork()) == 0:
        try:
            own = Beginnings()
            for celery_id in ("id-1", "id-2", "ended"):
                header: dict[str, Any] = {RUN_HEADER: str(queued(celery_id).id)}
                own.add(run := begin(id=celery_id, **header))
            Journal().append(run.finish(State.SUCCESS).line)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    recorder.current.set(None)
    batch_writer.start()

    assert eventually(lambda: not list(journal_folder.iterdir()))
    runs = TaskRun.objects.order_by("celery_id").values_list("celery_id", "state")
    assert list(runs) == [("ended", "success"), ("id-1", "failure"), ("id-2", "failure")]
