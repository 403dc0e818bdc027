"""The runs of a day are dropped together, and those that are kept longer stay."""

import logging
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_delete
from django.utils import timezone
from pytest_django import Settings

from systemtasks.models import StatisticsProgress, SystemTask, TaskRun, TaskStatistics
from systemtasks.states import State
from systemtasks.storage import partitions, rows
from systemtasks.storage.partitions import (
    AHEAD,
    Partitions,
    bounds,
    drop,
    existing,
    make_ahead,
    plan_days,
)
from systemtasks.storage.retention import Retention, delete_expired
from tests.factories import system_task, task_run
from tests.systemtasks.entries import record
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything_is_counted")]

DAY = timedelta(days=1)
LONG_AGO = date(2020, 1, 1)
OLD_ENOUGH = timedelta(days=40)


def id_at(moment: datetime) -> UUID:
    """An id that was made at that time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | uuid4().int >> 66)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def run_of(day: date, *, expires: datetime | None, **fields: Any) -> TaskRun:
    task = SystemTask.objects.first() or system_task(expires=None)
    return task_run(task, id=id_at(noon(day)), expires=expires, **fields)


def make(day: date) -> None:
    """Have a partition of that day, as if it had been made when it was time."""
    assert partitions._make(day)
    defer_foreign_keys()


def defer_foreign_keys() -> None:
    """Have them as they are in a transaction of its own, and not as partitions.py needs them."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def partition_of(run: TaskRun) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass FROM systemtasks_taskrun WHERE id = %s", [run.id])
        return str(cursor.fetchone()[0])


@pytest.fixture(autouse=True)
def _no_task_is_known() -> None:
    rows.forget()


@pytest.fixture
def old_day() -> date:
    """A day with a partition, of which every run has expired that is kept for the usual time."""
    day = today() - OLD_ENOUGH
    make(day)
    return day


def test_there_are_partitions_for_the_next_days_and_they_are_made_once() -> None:
    for day in existing():
        drop(day)
    made = make_ahead()

    assert made == existing() == [today() + number * DAY for number in range(AHEAD + 1)]
    assert make_ahead() == []


def test_runs_are_in_the_partition_of_the_day_of_their_ids() -> None:
    make_ahead()
    defer_foreign_keys()
    rows.write([record(id=id_at(timezone.now()), execution=uuid4())])
    first, end = bounds(today())

    run = TaskRun.objects.get()
    assert partition_of(run) == f"systemtasks_taskrun_{today():%Y%m%d}"
    assert first <= run.id < end


@pytest.mark.parametrize("moment", [noon(LONG_AGO), datetime(2100, 1, 1, tzinfo=UTC), None])
def test_run_of_an_odd_time_is_recorded_too(moment: datetime | None) -> None:
    rows.write([record(id=id_at(moment) if moment else uuid4(), execution=uuid4())])

    assert partition_of(TaskRun.objects.get()) == "systemtasks_taskrun_default"


def test_runs_that_came_before_their_partition_move_to_it() -> None:
    run = run_of(LONG_AGO, expires=None)
    other = run_of(LONG_AGO + DAY, expires=None)
    make(LONG_AGO)

    assert partition_of(run) == "systemtasks_taskrun_20200101"
    assert partition_of(other) == "systemtasks_taskrun_default"
    assert TaskRun.objects.count() == 2


def test_day_with_many_runs_gets_no_partition_since_all_would_wait_while_they_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partitions, "MOVED_LIMIT", 1)
    many = [run_of(LONG_AGO, expires=timezone.now() - DAY) for _ in range(2)]
    one = run_of(LONG_AGO + DAY, expires=None)

    assert partitions.make([LONG_AGO, LONG_AGO + DAY]) == [LONG_AGO + DAY]
    assert partition_of(many[0]) == "systemtasks_taskrun_default"
    assert partition_of(one) == "systemtasks_taskrun_20200102"
    defer_foreign_keys()
    delete_in_turn()
    assert list(TaskRun.objects.all()) == [one]


@pytest.mark.django_db(transaction=True)
def test_run_that_waits_while_its_partition_is_made_is_written_to_it() -> None:
    made = Event()

    def make_and_wait() -> None:
        with transaction.atomic():
            make(LONG_AGO)
            made.set()
            eventually(somebody_waits_for_the_default)
        connection.close()

    maker = Thread(target=make_and_wait)
    maker.start()
    assert made.wait(10)
    try:
        rows.write([record(id=id_at(noon(LONG_AGO)), execution=uuid4())])
        assert partition_of(TaskRun.objects.get()) == "systemtasks_taskrun_20200101"
    finally:
        maker.join()
        drop(LONG_AGO)


def somebody_waits_for_the_default() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted "
            "AND relation = 'systemtasks_taskrun_default'::regclass"
        )
        return bool(cursor.fetchone()[0])


def test_day_is_dropped_and_what_outlives_it_stays(old_day: date) -> None:
    now = timezone.now()
    kept = [
        run_of(old_day, expires=None),
        run_of(old_day, expires=now + DAY),
        run_of(old_day, expires=now - DAY, state=State.RUNNING, finish_timestamp=None),
    ]
    for _ in range(3):
        run_of(old_day, expires=now - DAY)
    other = run_of(old_day + DAY, expires=now - DAY)

    [expired] = plan_days().to_drop
    assert (expired.day, expired.runs, expired.outliving) == (old_day, 6, 3)
    assert drop(old_day) == 3
    assert old_day not in existing()
    assert set(TaskRun.objects.all()) == {*kept, other}
    assert drop(old_day) == 0


def test_run_that_outlives_its_day_ends_and_expires_like_any_other(old_day: date) -> None:
    message, execution = id_at(noon(old_day)), uuid4()
    in_progress: dict[str, Any] = {
        "state": State.RUNNING,
        "finish_timestamp": None,
        "duration": None,
        "lease": str(uuid4()),
    }
    rows.write([record(id=message, execution=execution, **in_progress)])
    drop(old_day)
    defer_foreign_keys()
    rows.write([record(id=message, execution=execution, expires=timezone.now() - DAY)])

    assert TaskRun.objects.get().state == "success"
    SystemTask.objects.update(expires=None)
    assert delete_expired([], defaultdict(set)) == 1
    assert not TaskRun.objects.exists()


def test_day_with_many_runs_that_outlive_it_waits_and_loses_the_others(
    old_day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOVED_LIMIT", 1)
    for _ in range(2):
        run_of(old_day, expires=timezone.now() + DAY)
        run_of(old_day, expires=timezone.now() - DAY)
    delete_in_turn()

    assert old_day in existing()
    assert TaskRun.objects.filter(expires__gt=timezone.now()).count() == 2
    assert TaskRun.objects.count() == 2


def delete_in_turn() -> None:
    """Do all that a worker does once a minute."""
    retention = Retention()
    retention.keep([])
    while retention.delete():
        pass


def test_worker_drops_what_has_expired_and_makes_what_is_to_come(
    old_day: date, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run_of(old_day, expires=timezone.now() - DAY)
    kept = run_of(old_day, expires=None)
    delete_in_turn()

    assert list(TaskRun.objects.all()) == [kept]
    assert set(existing()) >= {today(), today() + AHEAD * DAY}
    assert old_day not in existing()
    assert f"The 1 runs of {old_day} are dropped in" in caplog.text
    assert "1 are kept longer" in caplog.text


def test_runs_of_a_day_that_is_about_to_be_dropped_are_not_deleted_one_by_one() -> None:
    """Of today 30 days ago, some have expired, and the day is dropped tomorrow."""
    day = today() - timedelta(days=30)
    make(day)
    waiting = run_of(day, expires=timezone.now() - timedelta(minutes=1))
    short_lived = run_of(today(), expires=timezone.now() - timedelta(minutes=1))
    delete_in_turn()

    assert list(TaskRun.objects.all()) == [waiting]
    assert short_lived not in TaskRun.objects.all()


def test_what_is_kept_for_ever_is_not_dropped(old_day: date, settings: Settings) -> None:
    settings.SYSTEMTASKS = {"EXPIRES_AFTER_DAYS": 0}
    run_of(old_day, expires=timezone.now() - DAY)
    delete_in_turn()

    assert old_day in existing()
    assert not TaskRun.objects.exists()  # since its own task has said so


def test_runs_that_the_project_wants_to_hear_of_are_deleted_by_django(old_day: date) -> None:
    deleted = []

    def hear(instance: TaskRun, **_: Any) -> None:
        deleted.append(instance.pk)

    run = run_of(old_day, expires=timezone.now() - DAY)
    post_delete.connect(hear, sender=TaskRun)
    try:
        delete_in_turn()
    finally:
        post_delete.disconnect(hear, sender=TaskRun)

    assert deleted == [run.pk]


def test_role_that_may_not_change_the_table_deletes_one_by_one(
    old_day: date, caplog: pytest.LogCaptureFixture
) -> None:
    run_of(old_day, expires=timezone.now() - DAY)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE ROLE writer_only; GRANT USAGE ON SCHEMA public TO writer_only; GRANT SELECT, "
            "INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer_only; "
            "SET LOCAL ROLE writer_only"
        )
    delete_in_turn()

    assert not TaskRun.objects.exists()
    assert "The partitions of the table of runs cannot be changed" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_partition_that_somebody_uses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    day = today() - OLD_ENOUGH
    make(day)
    began, over = Event(), Event()

    def read() -> None:
        with transaction.atomic():
            list(TaskRun.objects.all())
            began.set()
            over.wait(30)
        connection.close()

    reader = Thread(target=read)
    reader.start()
    assert began.wait(10)
    try:
        with pytest.raises(OperationalError, match="lock timeout"):
            Partitions().keep()
        assert day in existing()
    finally:
        over.set()
        reader.join()
    Partitions().keep()

    assert day not in existing()


def test_runs_are_an_ordinary_model() -> None:
    """Django sees one table, and its keys, constraints and indexes hold in each partition."""
    make_ahead()
    run = run_of(today(), expires=None)
    with connection.cursor() as cursor:
        described = connection.introspection.get_constraints(cursor, TaskRun._meta.db_table)
        partition = connection.introspection.get_constraints(cursor, partition_of(run))
    names = {constraint.name for constraint in TaskRun._meta.constraints}

    assert {index.name for index in TaskRun._meta.indexes} | names <= described.keys()
    assert names <= partition.keys()
    assert sum(bool(each["index"]) for each in partition.values()) == sum(
        bool(each["index"]) for each in described.values()
    )


def test_command_says_what_it_would_delete_and_then_does(old_day: date) -> None:
    now = timezone.now()
    run_of(old_day, expires=now - DAY)
    run_of(old_day, expires=None)
    run_of(today(), expires=now - DAY)
    system_task("unused", expires=now - DAY)
    lines = [
        f"{old_day}: 1 runs are dropped with their partition, 1 are kept longer",
        "1 task runs are deleted",
        "1 System Tasks are deleted",
        "1 rows of statistics of each hour are deleted",
    ]
    statistics = TaskStatistics(
        period="hour",
        start=noon(LONG_AGO),
        system_task=uuid4(),
        state="success",
        status="successful",
        runs=1,
        retries=0,
        further=0,
        duration_sum=1,
        wait_sum=1,
    )
    statistics.save(force_insert=True)

    assert said("--dry-run") == [*lines, "Nothing was changed."]
    assert (TaskRun.objects.count(), old_day in existing()) == (3, True)
    assert [line for line in said() if "is made" not in line] == lines
    assert (TaskRun.objects.count(), old_day in existing()) == (1, False)
    assert not SystemTask.objects.filter(name="unused").exists()
    assert not TaskStatistics.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_command_says_what_it_would_delete_although_it_counts_that_before() -> None:
    StatisticsProgress.objects.all().delete()
    day, now = today() - OLD_ENOUGH, timezone.now()
    make(day)
    began: dict[str, Any] = {"start_timestamp": now - 3 * DAY, "finish_timestamp": now - 3 * DAY}
    expired: dict[str, Any] = {"expires": now - timedelta(hours=2), **began}
    task_run(system_task("of-a-day", expires=now), id=id_at(noon(day)), **expired)
    of_few = system_task("of-few", expires=now)
    task_run(of_few, **expired)
    of_one_that_stays = system_task("of-one-that-stays", expires=now)
    task_run(of_one_that_stays, **expired)
    stays = task_run(of_one_that_stays, expires=now + DAY, **began)
    lines = [
        f"{day}: 1 runs are dropped with their partition, 0 are kept longer",
        "2 task runs are deleted",
        "2 System Tasks are deleted",
    ]

    assert said("--dry-run") == [*lines, "Nothing was changed."]
    assert [line for line in said() if "is made" not in line] == lines
    assert list(TaskRun.objects.all()) == [stays]
    assert list(SystemTask.objects.all()) == [of_one_that_stays]


def said(*options: str) -> list[str]:
    output = StringIO()
    call_command("systemtasks_retention", *options, stdout=output)
    return output.getvalue().splitlines()
