"""A run's row goes from queued to running to finished, in any order of writes."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise, permutations, zip_longest
from threading import Thread
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import KnownTask, RunRecord
from systemtasks.states import State, Status
from systemtasks.storage import rows
from tests.systemtasks.conftest import another_connection
from tests.systemtasks.entries import NOON, record, uuid_of
from tests.tenants import tenant_backend
from tests.waiting import eventually

LEASE = str(UUID(int=1))
OTHER = str(UUID(int=2))
LATER = NOON + timedelta(minutes=1)
SECOND = uuid_of("the second execution of a message")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_task_is_known() -> None:
    rows._tasks_with_row.clear()


def logged(*events: str) -> str:
    return orjson.dumps([{"event": event} for event in events]).decode()


def queued(celery_id: str = "id-1", **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "state": State.QUEUED,
        "status": Status.UNKNOWN,
        "worker": "",
        "messages": "[]",
        "start_timestamp": None,
        "finish_timestamp": None,
        "wait": None,
        "duration": None,
    }
    return record(celery_id, **{**values, **changes})


def running(celery_id: str = "id-1", *, start: datetime = NOON, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "state": State.RUNNING,
        "status": Status.UNKNOWN,
        "messages": logged("Begun"),
        "finish_timestamp": None,
        "duration": None,
        "expires": start + timedelta(days=30),
        "lease": LEASE,
    }
    return record(celery_id, start=start, **{**values, **changes})


def finished(celery_id: str = "id-1", *, start: datetime = NOON, **changes: Any) -> RunRecord:
    return record(celery_id, start=start, **{"messages": logged("Begun", "Done"), **changes})


def provisional(celery_id: str = "id-1", *, start: datetime = NOON, **changes: Any) -> RunRecord:
    """Return the end that a child records if it does not know the cause."""
    values: dict[str, Any] = {
        "state": State.FAILURE,
        "status": Status.ERROR,
        "exception": "SystemExit: 3",
        "messages": logged("Begun", "SystemExit: 3"),
        "lease": LEASE,
        "provisional": True,
    }
    return record(celery_id, start=start, **{**values, **changes})


def killed(celery_id: str = "id-1", *, start: datetime = NOON, **changes: Any) -> RunRecord:
    """Return the end that the main process records. It took the run just before its child began."""
    taken = start - timedelta(milliseconds=2)
    values: dict[str, Any] = {
        "state": State.FAILURE,
        "status": Status.ERROR,
        "exception": "WorkerLostError: 9",
        "messages": logged("WorkerLostError: 9"),
        "lease": LEASE,
        "from_main_process": True,
        "finish_timestamp": start + timedelta(seconds=2),
    }
    return record(celery_id, start=taken, **{**values, **changes})


def begun(celery_id: str = "id-1", *, start: datetime = NOON, **changes: Any) -> RunRecord:
    """Return the beginning of a run whose process was killed before its first row."""
    values = {"messages": "[]", "is_beginning": True, "is_gone": True}
    return running(celery_id, start=start, **{**values, **changes})


def events(of: TaskRun | SystemTask) -> list[str]:
    return [message["event"] for message in of.messages]


def stored() -> tuple[list[Any], list[Any]]:
    """Return all rows, without values from the database's clock."""
    runs = [dict(run) for run in TaskRun.objects.order_by("celery_id", "id").values()]
    tasks = [dict(task) for task in SystemTask.objects.order_by("uuid").values()]
    for run in runs:
        del run["sort_timestamp"], run["seen_timestamp"]
    for task in tasks:
        del task["sort_timestamp"]
    return runs, tasks


def executed() -> dict[UUID, dict[str, Any]]:
    """What the rows say of each execution, whichever was written first."""
    runs, _ = stored()
    for run in runs:
        for column in ("id", "message", "number", "executions"):
            del run[column]
    assert len({run["execution"] for run in runs}) == len(runs)
    return {run["execution"]: run for run in runs}


def let_pass(seconds: float) -> None:
    """Set the last sign of life of every run to this many seconds ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE systemtasks_taskrun SET seen_timestamp = now() - make_interval(secs => %s) "
            "WHERE seen_timestamp IS NOT NULL",
            [seconds],
        )


def set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """Have this host's clock stand at a time."""
    monkeypatch.setattr(rows, "time", SimpleNamespace(time=now.timestamp))


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])


def reap_what_began() -> None:
    rows.write([running()])
    let_pass(61)
    assert rows.end_orphaned_runs(60) == 1


# From queued to running to finished.


def test_sent_task_is_a_queued_run_of_a_task_that_has_not_run_yet() -> None:
    rows.write([queued(sender="web@1", context='{"user": 7}')])
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.state, run.status, run.start_timestamp) == ("queued", "unknown", None)
    assert (run.sender, run.context) == ("web@1", {"user": 7})
    assert run.system_task == task
    assert (task.status, task.duration) == ("unknown", 0)
    assert events(task) == ["Task has not been run yet."]


def test_running_run_is_a_row_that_says_who_answers_for_it() -> None:
    rows.write([running()])
    run = TaskRun.objects.get()

    assert (run.state, str(run.lease), events(run)) == ("running", LEASE, ["Begun"])
    assert run.seen_timestamp
    assert events(SystemTask.objects.get()) == ["Task has not been run yet."]


@pytest.mark.parametrize("order", list(permutations([queued(), running(), finished()])))
@pytest.mark.parametrize("together", [True, False])
def test_finished_run_stands_whatever_the_order_of_arrival(
    order: Sequence[RunRecord], together: bool
) -> None:
    for batch in [order] if together else [[one] for one in order]:
        rows.write(batch)
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.state, events(run), run.lease) == ("success", ["Begun", "Done"], None)
    assert run.seen_timestamp is None
    assert (task.status, events(task)) == ("successful", ["Begun", "Done"])


def test_running_run_says_more_as_it_goes_on() -> None:
    rows.write([running()])
    rows.write([running(messages=logged("Begun", "Half-way"))])

    assert events(TaskRun.objects.get()) == ["Begun", "Half-way"]


def test_replayed_records_change_nothing() -> None:
    old, new = finished("old"), finished("new", start=LATER, status=Status.WARNING)
    rows.write([queued("old"), old, new, killed("gone", start=LATER)])
    before = stored()
    rows.write([queued("old"), old])
    rows.write([killed("gone", start=LATER), new])

    assert stored() == before


# Redelivered: the same message is executed again.


@pytest.mark.parametrize("together", [True, False])
def test_each_execution_of_a_message_has_a_row_and_a_number(together: bool) -> None:
    third = uuid_of("the third execution of a message")
    records = [
        queued(),
        running(),
        finished(start=LATER, execution=SECOND, messages=logged("Begun again")),
        running(start=LATER + timedelta(minutes=1), execution=third, lease=OTHER),
    ]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)
    first, second, last = TaskRun.objects.order_by("number")

    assert [run.number for run in (first, second, last)] == [1, 2, 3]
    assert [run.state for run in (first, second, last)] == ["running", "success", "running"]
    assert (first.executions, first.message) == (3, None)
    assert (str(second.id), str(last.id)) == (SECOND, third)
    assert second.message == last.message == first.id == UUID(queued().id)
    assert events(second) == ["Begun again"]
    assert str(last.lease) == OTHER


@pytest.mark.parametrize("together", [True, False])
def test_execution_ends_in_its_own_row(together: bool) -> None:
    rows.write([running(), running(start=LATER, execution=SECOND, lease=OTHER)])
    records = [killed(start=LATER, execution=SECOND, lease=OTHER), finished()]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)
    first, second = TaskRun.objects.order_by("number")

    assert (first.state, events(first)) == ("success", ["Begun", "Done"])
    assert (second.state, events(second)) == ("failure", ["Begun", "WorkerLostError: 9"])
    assert (first.number, second.number, first.executions) == (1, 2, 2)
    assert SystemTask.objects.get().status == "error"


def test_message_that_is_executed_first_when_it_is_redelivered_is_queued_no_more() -> None:
    rows.write([queued()])
    rows.write([running(execution=SECOND, redelivered=True)])
    run = TaskRun.objects.get()

    assert (run.id, run.execution, run.state) == (UUID(queued().id), UUID(SECOND), "running")
    assert (run.number, run.redelivered) == (1, True)


@pytest.mark.parametrize("other", [{"celery_id": "id-2"}, {"attempt": 2}])
def test_id_that_was_copied_from_another_message_takes_none_of_its_rows(
    other: dict[str, Any],
) -> None:
    """Celery copies headers it does not know to a retry, and a program may copy all of them."""
    rows.write([queued()])
    rows.write([finished(**{"celery_id": "id-1", **other, "id": queued().id, "execution": SECOND})])
    states = dict(TaskRun.objects.values_list("id", "state"))

    assert states == {UUID(queued().id): "queued", UUID(SECOND): "success"}
    assert TaskRun.objects.get(id=SECOND).number == 1


def test_one_celery_id_may_stand_for_many_messages() -> None:
    for day in range(3):
        message = uuid_of(f"day {day}")
        start = NOON + timedelta(hours=day)
        rows.write([finished("daily", id=message, execution=uuid_of(message), start=start)])

    assert TaskRun.objects.filter(celery_id="daily", number=1).count() == 3


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_execute_one_message_at_once_have_a_row_each() -> None:
    def write() -> None:
        rows.write([finished(execution=SECOND, start=LATER)])
        connection.close()

    other_worker = Thread(target=write)
    with transaction.atomic():
        rows.write([finished()])
        other_worker.start()
        assert eventually(somebody_waits_for_a_lock)
    other_worker.join(30)

    numbers = {str(run.id): run.number for run in TaskRun.objects.all()}
    assert numbers == {queued().id: 1, SECOND: 2}


def test_task_that_another_one_replaced_keeps_its_run() -> None:
    new = uuid_of("another message")
    old = finished(state=State.IGNORED, status=Status.UNKNOWN, replaced_by=new)
    rows.write([old])
    rows.write(
        [finished(start=LATER, name="shop.refund", id=new, execution=SECOND, replaces=old.id)]
    )
    first, second = TaskRun.objects.order_by("sort_timestamp")

    assert (first.replaced_by, second.replaces) == (second.id, first.id)
    assert [run.system_task.name for run in (first, second)] == ["shop.charge", "shop.refund"]


# One clock.


YEAR = timedelta(days=365)


@pytest.mark.parametrize("ahead", [timedelta(seconds=-300), YEAR, -YEAR])
@pytest.mark.parametrize("wrong_first", [True, False])
def test_last_run_of_a_task_is_the_one_that_started_last_whatever_the_hosts_clocks(
    ahead: timedelta, wrong_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that started ten seconds ago, and not the one that started twenty seconds ago."""
    for order, host_is_wrong in enumerate([wrong_first, not wrong_first]):
        now = datetime.now(UTC) + (ahead if host_is_wrong else timedelta(0))
        set_clock(monkeypatch, now)
        rows.write([finished(f"id-{order}", start=now - timedelta(seconds=20 - 10 * order))])
    task = SystemTask.objects.get()

    assert task.execution == TaskRun.objects.newest_first()[0].execution
    assert TaskRun.objects.newest_first()[0].celery_id == "id-1"


def test_run_of_an_old_journal_is_not_the_last_one() -> None:
    now = datetime.now(UTC)
    rows.write([finished("new", start=now - timedelta(seconds=5))])
    rows.write([finished("old", start=now - timedelta(hours=5), status=Status.WARNING)])

    assert SystemTask.objects.get().status == "successful"


@pytest.mark.parametrize("ahead", [timedelta(seconds=-300), YEAR])
def test_final_end_replaces_an_orphaned_one_whatever_the_hosts_clocks(
    ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's own end, and that of the execution on another host that follows it."""
    now = datetime.now(UTC)
    rows.write([running(start=now - timedelta(seconds=90))])
    let_pass(61)
    rows.end_orphaned_runs(60)
    assert SystemTask.objects.get().status == "error"
    set_clock(monkeypatch, now + ahead)
    rows.write([finished(start=now + ahead - timedelta(seconds=5), execution=SECOND)])
    assert SystemTask.objects.get().status == "successful"
    rows.write([finished(start=now + ahead - timedelta(seconds=90), status=Status.WARNING)])

    assert TaskRun.objects.get(number=1).state == "success"
    assert SystemTask.objects.get().status == "successful"


# Ends that only the main process knows, and provisional ends.


@pytest.mark.parametrize("together", [True, False])
def test_main_process_closes_what_a_child_had_begun_and_keeps_its_messages(together: bool) -> None:
    records = [running(), killed()]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.state, run.status, run.exception) == ("failure", "error", "WorkerLostError: 9")
    assert events(run) == ["Begun", "WorkerLostError: 9"]
    assert (run.start_timestamp, run.duration) == (NOON, 2.0)
    assert (run.lease, run.seen_timestamp) == (None, None)
    assert (task.status, events(task), task.duration) == ("error", events(run), 2.0)


@pytest.mark.parametrize("together", [True, False])
def test_child_began_even_if_the_main_process_does_not_know_when(together: bool) -> None:
    records = [running(), killed(start=LATER)]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)

    assert TaskRun.objects.get().start_timestamp == NOON
    assert events(TaskRun.objects.get()) == ["Begun", "WorkerLostError: 9"]


def test_main_process_closes_no_run_of_another_worker() -> None:
    rows.write([running(start=LATER, lease=OTHER, execution=SECOND)])
    rows.write([killed()])

    assert TaskRun.objects.get(execution=SECOND).state == "running"


def test_main_process_closes_no_run_that_began_after_that_end() -> None:
    """A redelivered task may run in the same worker before the main process has written the end."""
    rows.write([running(start=LATER, execution=SECOND)])
    rows.write([killed()])

    assert TaskRun.objects.get(execution=SECOND).state == "running"


def test_main_process_alone_makes_the_row_where_the_child_wrote_none() -> None:
    rows.write([queued()])
    rows.write([killed()])

    assert (TaskRun.objects.get().state, SystemTask.objects.get().status) == ("failure", "error")


def test_success_that_is_not_saved_has_a_row_only_while_it_is_in_progress() -> None:
    rows.write([running()])
    assert TaskRun.objects.get().state == "running"
    rows.write([finished(save_run=False)])

    assert not TaskRun.objects.exists()
    assert SystemTask.objects.get().status == "successful"


def test_unsaved_success_of_a_killed_child_counts_for_its_task() -> None:
    rows.write([finished(save_run=False, lease=LEASE, provisional=True)])

    assert not TaskRun.objects.exists()
    assert SystemTask.objects.get().status == "successful"


@pytest.mark.parametrize("order", list(permutations([finished(), killed()])))
@pytest.mark.parametrize("together", [True, False])
def test_end_that_the_child_knew_stands(order: Sequence[RunRecord], together: bool) -> None:
    for batch in [order] if together else [[one] for one in order]:
        rows.write(batch)

    assert (TaskRun.objects.get().state, SystemTask.objects.get().status) == (
        "success",
        "successful",
    )


def test_end_that_the_child_knew_stands_for_its_uid_alone() -> None:
    rows.write([finished(uid="ldap")])
    rows.write([killed()])

    assert SystemTask.objects.get().uid == "ldap"


@pytest.mark.parametrize("final", [finished(exception="WorkerLostError: 9"), killed()])
@pytest.mark.parametrize("provisional_first", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_provisional_end_gives_way_to_a_final_one_and_never_the_other_way(
    final: RunRecord, provisional_first: bool, together: bool
) -> None:
    records = [provisional(), final] if provisional_first else [final, provisional()]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.exception, run.lease) == ("WorkerLostError: 9", None)
    assert (run.status, events(run)) == (task.status, events(task))


@pytest.mark.django_db(transaction=True)
def test_main_process_that_writes_while_its_child_does_ends_its_run() -> None:
    def write() -> None:
        rows.write([killed()])
        connection.close()

    main_process = Thread(target=write)
    with transaction.atomic():
        rows.write([provisional()])
        main_process.start()
        assert eventually(somebody_waits_for_a_lock)
    main_process.join(30)
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.exception, run.lease) == ("WorkerLostError: 9", None)
    assert (run.status, events(run)) == (task.status, events(task))


def test_provisional_end_stands_if_there_is_no_other() -> None:
    rows.write([running()])
    rows.write([provisional()])

    assert (TaskRun.objects.get().exception, SystemTask.objects.get().status) == (
        "SystemExit: 3",
        "error",
    )


def test_provisional_end_is_not_reopened_by_its_own_run() -> None:
    rows.write([provisional()])
    rows.write([running()])
    rows.renew_lease(LEASE)

    assert TaskRun.objects.get().state == "failure"


@pytest.mark.django_db(transaction=True)
def test_run_that_is_sent_waits_for_nobody_who_works_on_its_task() -> None:
    rows.write([finished("done")])
    rows._tasks_with_row.clear()

    with (
        another_connection("UPDATE systemtasks_systemtask SET status = 'error'"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        rows.write([queued("sent")])
    assert TaskRun.objects.count() == 2


# Leases.


def test_run_whose_worker_is_gone_is_ended_once_with_its_last_sign_of_life() -> None:
    rows.write([running(worker="celery@host")])
    let_pass(61)
    seen = TaskRun.objects.get().seen_timestamp
    assert rows.end_orphaned_runs(60) == 1
    assert rows.end_orphaned_runs(60) == 0
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert seen
    moment = f"{seen:%Y-%m-%dT%H:%M:%SZ}"
    event = f"The worker celery@host is gone: its last sign of life was at {moment}"
    assert (run.state, run.status, run.exception) == ("failure", "error", event)
    assert events(run) == ["Begun", event]
    last = run.messages[-1]
    assert (last["log_level"], last["logger"]) == ("error", "shop.charge")
    assert last["attributes"] == {"worker": "celery@host", "last_sign_of_life": moment}
    assert datetime.fromisoformat(last["timestamp"]) <= datetime.now(UTC) + timedelta(minutes=1)
    assert (task.status, task.messages, task.start_timestamp) == ("error", run.messages, NOON)
    assert run.finish_timestamp == task.finish_timestamp == max(seen, NOON)
    assert run.expires == task.expires == run.finish_timestamp + timedelta(days=30)


def test_run_whose_worker_is_gone_is_kept_as_long_as_other_errors() -> None:
    rows.write([running()])
    let_pass(61)
    longer = {**django_settings.SYSTEMTASKS, "ERRORS_KEPT_LONGER_DAYS": 60}
    with override_settings(SYSTEMTASKS=longer):
        assert rows.end_orphaned_runs(60) == 1
    run, task = TaskRun.objects.get(), SystemTask.objects.get()
    assert run.finish_timestamp
    assert run.expires == task.expires == run.finish_timestamp + timedelta(days=90)


def test_runs_of_living_workers_and_what_has_ended_are_not_reaped() -> None:
    rows.write([running("alive"), provisional("ended"), queued("waiting"), finished("done")])
    before = stored()
    let_pass(59)

    assert rows.end_orphaned_runs(60) == 0
    assert stored() == before


def test_reaper_does_not_overwrite_what_a_later_run_says_of_its_task() -> None:
    rows.write([running("gone"), finished("later", start=LATER)])
    let_pass(61)

    assert rows.end_orphaned_runs(60) == 1
    assert SystemTask.objects.get().status == "successful"


GONE = f"The worker celery@host is gone: its last sign of life was at {NOON:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("sent", [True, False])
def test_run_that_was_killed_as_it_began_is_ended_at_once(sent: bool) -> None:
    rows.write([record("before", start=NOON - timedelta(hours=1))])
    rows.write([queued(args='["sent"]')] if sent else [])
    rows.write([begun()])
    rows.write([begun()])
    run = TaskRun.objects.get(celery_id="id-1")

    assert (run.state, run.status, run.exception) == ("failure", "error", GONE)
    assert (run.start_timestamp, run.finish_timestamp, run.duration) == (NOON, NOON, 0)
    assert (run.args, run.worker, str(run.lease)) == ([1, "zwei"], "celery@host", LEASE)
    assert run.messages[0].pop("timestamp")
    assert run.messages == [
        {
            "log_level": "error",
            "logger": "shop.charge",
            "event": GONE,
            "attributes": {
                "worker": "celery@host",
                "last_sign_of_life": f"{NOON:%Y-%m-%dT%H:%M:%SZ}",
            },
        }
    ]
    task = SystemTask.objects.get()
    assert (task.status, events(task)) == ("error", [GONE])


def test_arguments_that_were_sent_stay_where_the_beginning_has_none() -> None:
    rows.write([queued()])
    rows.write([begun(args=None, kwargs=None, arguments_intact=False)])
    run = TaskRun.objects.get()

    assert (run.state, run.args, run.kwargs) == ("failure", [1, "zwei"], {})
    assert run.arguments_intact


def test_run_that_was_in_progress_is_ended_with_what_it_had_logged() -> None:
    rows.write([running()])
    seen = TaskRun.objects.get().seen_timestamp
    rows.write([begun()])
    run = TaskRun.objects.get()

    assert (run.state, run.finish_timestamp, run.seen_timestamp) == ("failure", seen, seen)
    assert events(run) == ["Begun", run.exception]


def test_run_of_a_killed_child_is_left_to_its_main_process() -> None:
    rows.write([queued()])
    rows.write([begun(is_gone=False)])
    run = TaskRun.objects.get()
    assert (run.state, run.start_timestamp, str(run.lease)) == ("running", NOON, LEASE)
    rows.write([running(messages=logged("Begun", "More"))])
    rows.write([begun(is_gone=False)])
    assert events(TaskRun.objects.get()) == ["Begun", "More"]
    rows.write([killed()])

    assert events(TaskRun.objects.get()) == ["Begun", "More", "WorkerLostError: 9"]


@pytest.mark.parametrize("gone", [begun(), begun(is_gone=False)])
@pytest.mark.parametrize("order", list(permutations(range(2))))
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "end",
    [
        finished(),
        provisional(),
        finished(state=State.FAILURE, status=Status.ERROR, exception="ValueError"),
        killed(),
    ],
)
def test_what_is_known_of_the_run_stands_against_its_beginning(
    gone: RunRecord, order: tuple[int, int], together: bool, end: RunRecord
) -> None:
    rows.write([queued()])
    rows.write([end])
    expected = TaskRun.objects.values("state", "exception", "lease").get()
    expected_events = events(TaskRun.objects.get())
    expected_task = SystemTask.objects.values("status").get()
    SystemTask.objects.all().delete()
    rows._tasks_with_row.clear()
    records = [[gone, end][index] for index in order]
    rows.write([queued()])
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)

    assert TaskRun.objects.values("state", "exception", "lease").get() == expected
    run = TaskRun.objects.get()
    assert events(run) == expected_events
    assert end.start_timestamp
    assert run.start_timestamp
    # The main process starts a run slightly before its child does.
    assert timedelta(0) <= run.start_timestamp - end.start_timestamp <= timedelta(milliseconds=2)
    assert expected_task["status"] == "unknown" or (
        SystemTask.objects.values("status").get() == expected_task
    )


def test_unsaved_success_that_is_known_late_leaves_no_orphan() -> None:
    rows.write([begun(save_run=True)])
    assert TaskRun.objects.get().state == "failure"
    rows.write([finished(save_run=False)])

    assert not TaskRun.objects.exists()
    assert SystemTask.objects.get().status == "successful"


def test_worker_that_is_alive_after_all_has_its_run_back_and_ends_it_itself() -> None:
    rows.write([begun()])
    rows.renew_lease(OTHER)
    assert TaskRun.objects.get().state == "failure"
    rows.renew_lease(LEASE)
    run = TaskRun.objects.get()
    assert (run.state, run.exception, run.messages) == ("running", "", [])
    rows.write([begun()])
    rows.write([killed()])
    run = TaskRun.objects.get()

    assert (run.exception, events(run), run.lease) == (
        "WorkerLostError: 9",
        ["WorkerLostError: 9"],
        None,
    )


@pytest.mark.parametrize("together", [True, False])
def test_beginnings_of_one_message_in_two_dead_processes_are_two_runs(together: bool) -> None:
    records = [queued(), begun(start=LATER, lease=OTHER, execution=SECOND), begun()]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)
    rows.write(records)
    found = [(str(run.execution), run.state) for run in TaskRun.objects.order_by("number")]

    assert found == [(SECOND, "failure"), (begun().execution, "failure")]
    assert TaskRun.objects.get(number=2).message == UUID(queued().id)


@pytest.mark.parametrize("gone", [begun(), begun(is_gone=False)])
@pytest.mark.parametrize("together", [True, False])
def test_beginning_changes_nothing_of_another_execution(gone: RunRecord, together: bool) -> None:
    other = finished(start=LATER, execution=SECOND)
    records = [other, gone]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)

    assert TaskRun.objects.get(execution=SECOND).state == "success"
    assert TaskRun.objects.get(execution=gone.execution).state == (
        "failure" if gone.is_gone else "running"
    )


def test_worker_that_is_alive_after_all_has_its_runs_back_as_they_were() -> None:
    rows.write([running()])
    before, _ = stored()
    let_pass(61)
    rows.end_orphaned_runs(60)
    rows.renew_lease(LEASE)
    after, _ = stored()

    assert after == before
    assert rows.end_orphaned_runs(60) == 0


def test_lease_is_renewed_for_its_own_running_runs_alone() -> None:
    rows.write([running("mine"), running("theirs", lease=OTHER)])
    rows.write([provisional("ended"), queued("sent")])
    let_pass(61)
    rows.renew_lease(LEASE)

    assert rows.end_orphaned_runs(60) == 1
    assert set(TaskRun.objects.values_list("celery_id", "state")) == {
        ("mine", "running"),
        ("theirs", "failure"),
        ("ended", "failure"),
        ("sent", "queued"),
    }


def test_run_that_ends_after_it_was_reaped_is_corrected() -> None:
    reap_what_began()
    rows.write([finished()])
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.state, run.exception, events(run)) == ("success", "", ["Begun", "Done"])
    assert (task.status, events(task)) == ("successful", ["Begun", "Done"])
    rows.renew_lease(LEASE)
    assert TaskRun.objects.get().state == "success"


def test_run_that_goes_on_after_it_was_reaped_is_running_again() -> None:
    reap_what_began()
    rows.write([running(messages=logged("Begun", "Still here"))])
    run = TaskRun.objects.get()

    assert (run.state, run.exception) == ("running", "")
    assert (run.finish_timestamp, events(run)) == (None, ["Begun", "Still here"])


# Tasks that have not run yet.


def test_announced_tasks_have_not_run_yet() -> None:
    rows.announce([KnownTask("shop.charge", "ldap", "Charge."), KnownTask("shop.refund")])
    task = SystemTask.objects.get(uid="ldap")

    assert (task.full_name, task.description) == ("shop.charge:ldap", "Charge.")
    assert (task.status, task.expires) == ("unknown", None)
    assert events(task) == ["Task has not been run yet."]
    assert SystemTask.objects.count() == 2


@pytest.mark.parametrize("uid", ["", "ldap"])
def test_announcing_overwrites_nothing(uid: str) -> None:
    rows.write([finished(uid=uid)])
    before = stored()
    rows.announce([KnownTask("shop.charge", uid, "Another description.")])

    assert stored() == before


@pytest.mark.django_db(transaction=True)
def test_rows_are_written_in_the_schema_that_a_projects_backend_sets() -> None:
    with tenant_backend() as backend:
        backend.schema = "acme"
        rows.announce([KnownTask("shop.charge")])
        assert SystemTask.objects.get().name == "shop.charge"

        backend.schema = "public"
        assert not SystemTask.objects.exists()


def test_task_that_is_known_by_its_uids_is_not_announced_without_one() -> None:
    rows.write([finished(uid="ldap")])
    rows.announce([KnownTask("shop.charge"), KnownTask("shop.charge", "saml")])

    assert set(SystemTask.objects.values_list("uid", flat=True)) == {"ldap", "saml"}


def test_task_that_never_ran_gives_way_to_any_run_even_one_that_started_before() -> None:
    rows.announce([KnownTask("shop.charge")])
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    rows.write([finished(start=long_ago)])

    assert SystemTask.objects.get().start_timestamp == long_ago


def test_task_that_never_ran_gives_way_to_a_run_that_was_reaped() -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    rows.announce([KnownTask("shop.charge")])
    rows.write([running(start=long_ago)])
    let_pass(61)
    rows.end_orphaned_runs(60)

    assert SystemTask.objects.get().status == "error"


def test_ignored_run_is_not_taken_for_a_task_that_never_ran() -> None:
    rows.write([finished(state=State.IGNORED, status=Status.UNKNOWN)])
    rows.write([finished("older", start=NOON - timedelta(days=1))])

    assert SystemTask.objects.get().status == "unknown"


# Reports of a task about itself.


def test_uid_that_a_task_sets_moves_its_run_and_leaves_nothing_behind() -> None:
    rows.write([queued()])
    rows.write([running(uid="ldap")])
    assert TaskRun.objects.get().system_task.uid == "ldap"
    rows.write([finished(uid="ldap")])

    assert SystemTask.objects.get().uid == TaskRun.objects.get().system_task.uid == "ldap"
    rows.write([queued("next")])
    assert set(SystemTask.objects.values_list("uid", flat=True)) == {"", "ldap"}


@pytest.mark.parametrize("other", [finished("other"), queued("other")])
def test_row_that_stands_for_other_runs_stays_when_one_moves(other: RunRecord) -> None:
    rows.write([other])
    rows.write([finished(uid="ldap")])

    assert set(SystemTask.objects.values_list("uid", flat=True)) == {"", "ldap"}


def test_run_that_is_not_saved_is_shown_by_its_task_alone() -> None:
    rows.write([finished(save_run=False)])

    assert not TaskRun.objects.exists()
    assert SystemTask.objects.get().status == "successful"


def test_task_that_was_deleted_is_made_anew() -> None:
    rows.write([queued()])
    SystemTask.objects.all().delete()
    rows.write([finished(), running("id-2")])

    assert TaskRun.objects.count() == 2


# Any order, any batches.


def batches(records: Sequence[RunRecord], cuts: Collection[int]) -> list[Sequence[RunRecord]]:
    bounds = [0, *sorted(cut for cut in cuts if 0 < cut < len(records)), len(records)]
    return [records[begin:end] for begin, end in pairwise(bounds)]


def write_anew(
    records: Sequence[RunRecord],
    cuts: Collection[int] = (),
    between: Iterable[Callable[[], object] | None] = (),
) -> None:
    """Delete all rows, and write these records in batches. Call `between` after the batches."""
    TaskRun.objects.all().delete()
    SystemTask.objects.all().delete()
    rows._tasks_with_row.clear()
    for batch, happens in zip_longest(batches(records, cuts), between):
        if batch:
            rows.write(batch)
        if happens:
            happens()


def lease_lapses() -> None:
    let_pass(61)
    rows.end_orphaned_runs(60)


MOMENT = timedelta(milliseconds=10)
leases_between = st.sampled_from(
    [None, lease_lapses, partial(rows.renew_lease, LEASE), partial(rows.renew_lease, OTHER)]
)
cuts = st.sets(st.integers(1, 12))
database = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


@database
@given(st.data(), cuts)
def test_any_order_and_any_batches_of_one_execution_end_in_the_same_row(
    data: st.DataObject, cuts: set[int]
) -> None:
    end = [
        *data.draw(st.sampled_from([[], [running()], [running(), provisional()]])),
        *data.draw(st.sampled_from([[], [killed()]])),
        finished(),
    ]
    write_anew([*end, queued()])
    expected = stored()
    order = data.draw(st.permutations([queued(), *end, *data.draw(st.sampled_from([[], end]))]))
    write_anew(order, cuts)

    assert stored() == expected


KINDS = running, provisional, killed


@st.composite
def executions(draw: st.DrawFn) -> list[list[RunRecord]]:
    """Draw the records of each execution of one message.

    They overlap or not, and their worker may be the same. Some of its records are left out at
    random. The end that stands is one of them, and is given last.
    """
    found = []
    for number in range(draw(st.integers(1, 3))):
        start = NOON + timedelta(seconds=draw(st.integers(0, 3)))
        values: dict[str, Any] = {"start": start, "execution": uuid_of(f"execution {number}")}
        lease = draw(st.sampled_from([LEASE, OTHER]))
        own = [
            make(**values, messages=logged(f"{make.__name__} {number}"))
            for make in draw(st.lists(st.sampled_from(KINDS), unique=True))
        ]
        own.append(finished(**values, messages=logged(f"The end of {number}")))
        found.append([replace(one, lease=lease) if one.lease else one for one in own])
    return found


@database
@given(st.data(), cuts, executions(), st.lists(leases_between, max_size=12))
def test_any_order_and_any_batches_of_a_message_end_in_the_end_of_each_execution(
    data: st.DataObject,
    cuts: set[int],
    found: list[list[RunRecord]],
    between: list[Callable[[], object] | None],
) -> None:
    write_anew([own[-1] for own in found])
    expected = executed()
    records = [queued(), *(one for own in found for one in own)]
    replayed = data.draw(st.lists(st.sampled_from(records), max_size=3))
    write_anew(data.draw(st.permutations([*records, *replayed])), cuts, between)

    assert executed() == expected
    first, *further = TaskRun.objects.order_by("number")
    assert (first.id, first.executions) == (UUID(queued().id), len(found))
    assert [run.number for run in further] == [*range(2, len(found) + 1)]
    assert all((run.id, run.message) == (run.execution, first.id) for run in further)


@database
@given(st.permutations([queued(), running(), provisional(), killed()]), cuts)
def test_any_order_of_a_killed_run_ends_as_the_main_process_records(
    order: list[RunRecord], cuts: set[int]
) -> None:
    write_anew(order, cuts)
    run, task = TaskRun.objects.get(), SystemTask.objects.get()

    assert (run.state, run.exception, run.lease) == ("failure", "WorkerLostError: 9", None)
    assert events(run)[-1] == "WorkerLostError: 9"
    assert (task.status, task.messages) == (run.status, run.messages)


@st.composite
def attempts(draw: st.DrawFn) -> list[RunRecord]:
    """Draw the records of runs of a few tasks. Each run begins at a different moment."""
    records = []
    for number in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(["shop.charge", "shop.refund"]))
        start = NOON + timedelta(seconds=10 * number)
        own = [queued(f"id-{number}"), running(f"id-{number}", start=start)]
        own += draw(
            st.sampled_from(
                [
                    [],
                    [finished(f"id-{number}", start=start, duration=float(number))],
                    [provisional(f"id-{number}", start=start, duration=float(number))],
                    [killed(f"id-{number}", start=start)],
                ]
            )
        )
        records += [replace(one, name=name) for one in own]
    return records


@database
@given(st.data(), cuts)
def test_task_shows_its_latest_finished_run_whatever_the_order_and_the_batches(
    data: st.DataObject, cuts: set[int]
) -> None:
    records = data.draw(attempts())
    write_anew(data.draw(st.permutations(records)), cuts)

    assert TaskRun.objects.count() == len({(one.celery_id, one.attempt) for one in records})
    for task in SystemTask.objects.all():
        ended = task.runs.filter(finish_timestamp__isnull=False)
        last = ended.order_by("start_timestamp").last()
        if last is None:
            assert events(task) == ["Task has not been run yet."]
        else:
            assert (task.start_timestamp, task.status) == (last.start_timestamp, last.status)
            assert task.messages == last.messages


@pytest.mark.django_db
@pytest.mark.parametrize("days", [-40, 365])
def test_run_of_a_host_whose_clock_is_wrong_expires_when_it_should(
    monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    wrong = timezone.now() + timedelta(days=days)
    set_clock(monkeypatch, wrong)
    keep = timedelta(days=30)
    rows.write([record(start_timestamp=wrong, finish_timestamp=wrong, expires=wrong + keep)])

    for row in (TaskRun.objects.get(), SystemTask.objects.get()):
        assert row.expires is not None
        assert abs(row.expires - keep - timezone.now()) < timedelta(minutes=1)
