"""Expired rows are deleted, unless they are in progress, in use or to be kept."""

from collections import defaultdict
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import KnownTask
from systemtasks.states import State
from systemtasks.storage import retention, rows
from systemtasks.storage.retention import BATCH_LIMIT, Retention, delete_expired
from tests.factories import system_task, task_run
from tests.systemtasks.conftest import another_connection
from tests.systemtasks.entries import record

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_is_counted")]

DAY = timedelta(days=1)


def run(name: str = "tests.clean_up", *, expired: bool = True, **fields: Any) -> TaskRun:
    """Return a run. The run and its task expired a day ago, or will expire in a day."""
    expires = timezone.now() + (-DAY if expired else DAY)
    found = SystemTask.objects.filter(name=name).first()
    return task_run(found or system_task(name, expires=expires), expires=expires, **fields)


def delete(*kept: KnownTask) -> int:
    """Delete the expired rows, except these, and return their number."""
    return delete_expired(kept, defaultdict(set))


def left() -> tuple[set[str], set[str]]:
    """Return the tasks and the runs that are left."""
    tasks, runs = SystemTask.objects.all(), TaskRun.objects.all()
    return {task.name for task in tasks}, {run.celery_id for run in runs}


def test_what_has_expired_is_deleted_and_nothing_else() -> None:
    run("old", celery_id="old")
    run("new", celery_id="new", expired=False)
    keeper = system_task("for-ever", expires=None)
    task_run(keeper, celery_id="for-ever", expires=None)

    assert delete() == 2
    assert left() == ({"new", "for-ever"}, {"new", "for-ever"})
    assert delete() == 0


def test_run_in_progress_and_its_task_stay() -> None:
    run(celery_id="busy", state=State.RUNNING, finish_timestamp=None)

    assert delete() == 0
    assert left() == ({"tests.clean_up"}, {"busy"})


def test_run_that_never_started_is_deleted() -> None:
    run(state=State.LOST, start_timestamp=None)

    assert delete() == 2
    assert left() == (set(), set())


def test_task_stays_as_long_as_it_has_a_run() -> None:
    run(celery_id="old")
    run(celery_id="young", expired=False)

    assert delete() == 1
    assert left() == ({"tests.clean_up"}, {"young"})


def test_task_that_is_known_from_the_start_keeps_its_row_and_expires_no_more() -> None:
    run("yearly")
    system_task("yearly", "of a customer", expires=timezone.now() - DAY)

    assert delete(KnownTask("yearly")) == 2
    kept = SystemTask.objects.get()
    assert (kept.full_name, kept.status, kept.expires) == ("yearly", "successful", None)


def test_such_a_task_is_kept_from_processes_that_do_not_know_it() -> None:
    """With django-celery-beat, no worker knows what beat's schedule is."""
    soon, later = timezone.now() + timedelta(seconds=90), timezone.now() + DAY
    for name, expires in (("soon", soon), ("later", later)):
        system_task(name, expires=expires)

    delete(KnownTask("soon"), KnownTask("later"))
    assert SystemTask.objects.get(name="soon").expires is None
    assert SystemTask.objects.get(name="later").expires == later


def test_no_more_than_a_batch_is_deleted_at_once_and_the_oldest_first() -> None:
    task = system_task(expires=None)
    now = timezone.now()
    for number in range(BATCH_LIMIT + 1):
        task_run(task, celery_id=f"{number}", expires=now - timedelta(seconds=number))

    assert delete() == BATCH_LIMIT
    assert TaskRun.objects.get().celery_id == "0"


@pytest.mark.django_db(transaction=True)  # the foreign key is checked at its end
def test_deleted_task_has_a_row_again_when_it_is_sent_again() -> None:
    rows.write([record("id-1", expires=timezone.now() - DAY)])
    assert delete() == 2

    sent = record("id-2", state=State.QUEUED, start_timestamp=None, finish_timestamp=None)
    rows.write([sent])
    assert left() == ({sent.name}, {"id-2"})


def test_task_stays_if_a_run_comes_before_it_can_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    run(celery_id="old")
    locked = retention._locked

    def slowly(rows: "QuerySet[Any, Any]") -> list[Any]:
        keys = locked(rows)
        if rows.model is SystemTask and keys:
            task_run(SystemTask.objects.get(), celery_id="just in time")
        return keys

    monkeypatch.setattr(retention, "_locked", slowly)
    delete()
    assert left() == ({"tests.clean_up"}, {"just in time"})


PROTECTED = """
    CREATE TABLE bookmark (run uuid REFERENCES systemtasks_taskrun DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO bookmark SELECT id FROM systemtasks_taskrun WHERE celery_id = 'protected';
    CREATE TABLE favourite (task uuid REFERENCES systemtasks_systemtask);
    INSERT INTO favourite SELECT uuid FROM systemtasks_systemtask WHERE name = 'favourite'
"""


def test_what_a_project_protects_is_passed_over_and_a_warning_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "INTERVAL", 0.0)
    run("other", celery_id="protected")
    run("favourite", celery_id="free")
    for number in range(5):
        run(celery_id=f"{number}")
    with connection.cursor() as cursor:
        cursor.execute(PROTECTED)
    here = Retention()
    here.keep([])
    for _ in range(3):
        assert not here.delete()

    assert left() == ({"other", "favourite"}, {"protected"})
    of_run, of_task = [line for line in caplog.messages if "is not deleted" in line]
    assert 'violates foreign key constraint "bookmark_run_fkey"' in of_run
    assert 'violates foreign key constraint "favourite_task_fkey"' in of_task


def test_a_receiver_that_raises_keeps_the_rows_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def audit(**_: Any) -> None:
        raise RuntimeError("The audit log is full")

    run(celery_id="old")
    here = Retention()
    here.keep([])
    post_delete.connect(audit)
    try:
        assert not here.delete()
    finally:
        post_delete.disconnect(audit)

    assert left() == ({"tests.clean_up"}, {"old"})
    assert "The audit log is full" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_deletion_waits_for_a_projects_own_row_no_longer_than_a_moment() -> None:
    run(celery_id="old")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bookmark (run uuid REFERENCES systemtasks_taskrun ON DELETE SET NULL)"
        )
        cursor.execute("INSERT INTO bookmark SELECT id FROM systemtasks_taskrun")
    try:
        with (
            another_connection("SELECT FROM bookmark FOR UPDATE"),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            delete()
        assert delete() == 2
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE bookmark")


def test_what_a_row_says_is_not_read_to_delete_it() -> None:
    run(celery_id="old")

    with CaptureQueriesContext(connection) as asked:
        assert delete() == 2
    assert not [query["sql"] for query in asked.captured_queries if '"messages"' in query["sql"]]


@pytest.mark.django_db(transaction=True)
def test_row_on_which_another_process_works_is_left_for_later() -> None:
    run(celery_id="locked")
    run(celery_id="free")

    with (
        another_connection("SELECT FROM systemtasks_taskrun WHERE celery_id = 'locked' FOR UPDATE"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        assert delete() == 1
    assert left() == ({"tests.clean_up"}, {"locked"})
    assert delete() == 2


@pytest.mark.django_db(transaction=True)
def test_one_process_deletes_at_a_time() -> None:
    run()

    with another_connection("SELECT pg_advisory_xact_lock(hashtext('systemtasks.retention'))"):
        assert delete() == 0
    assert delete() == 2


class House:
    """A clock, and a database with a number of expired rows."""

    def __init__(self, expired: int) -> None:
        self.now = 1000.0
        self.expired = expired
        self.asked: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def delete_expired(self, kept: list[KnownTask], *_: object) -> int:
        assert kept == [KnownTask("yearly")]
        self.asked.append(self.now)
        deleted = min(self.expired, BATCH_LIMIT)
        self.expired -= deleted
        return deleted


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(expired=2 * BATCH_LIMIT + 1)
    monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=made.monotonic))
    monkeypatch.setattr(retention, "delete_expired", made.delete_expired)
    return made


def test_batches_follow_each_other_until_all_is_deleted_and_a_minute_later_again(
    house: House,
) -> None:
    here = Retention()
    here.keep([KnownTask("yearly")])

    assert [here.delete(), here.delete(), here.delete()] == [True, True, False]
    assert house.expired == 0
    for house.now in (1059.0, 1060.0, 1119.0, 1120.0):
        assert not here.delete()
    assert house.asked == [1000.0, 1000.0, 1000.0, 1060.0, 1120.0]


def test_process_that_does_not_know_what_to_keep_deletes_nothing(house: House) -> None:
    assert not Retention().delete()
    assert house.asked == []
