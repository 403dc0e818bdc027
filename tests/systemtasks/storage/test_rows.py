"""An attempt's row goes from queued to running to finished, in any order of writes."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise, permutations, zip_longest
from threading import Thread
from typing import Any
from uuid import UUID

import orjson
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import KnownTask, RunRecord
from systemtasks.states import State, Status
from systemtasks.storage import rows
from tests.systemtasks.conftest import another_connection
from tests.systemtasks.entries import NOON, record
from tests.waiting import eventually

LEASE = str(UUID(int=1))
OTHER = str(UUID(int=2))
LATER = NOON + timedelta(minutes=1)

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
    """Return all rows, without values from the database's clock and sequence."""
    runs = [dict(run) for run in TaskRun.objects.order_by("celery_id", "attempt").values()]
    for run in runs:
        del run["id"], run["seen_timestamp"]
    return runs, [dict(task) for task in SystemTask.objects.order_by("uuid").values()]


def let_pass(seconds: float) -> None:
    """Set the last sign of life of every run to this many seconds ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE systemtasks_taskrun SET seen_timestamp = now() - make_interval(secs => %s) "
            "WHERE seen_timestamp IS NOT NULL",
            [seconds],
        )


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


# Redelivered: the same Celery id and attempt runs again.


def test_redelivered_run_replaces_the_one_that_was_cut_short() -> None:
    rows.write([running()])
    rows.write([running(start=LATER, lease=OTHER, messages=logged("Begun again"))])
    run = TaskRun.objects.get()

    assert (run.start_timestamp, str(run.lease)) == (LATER, OTHER)
    assert events(run) == ["Begun again"]


def test_redelivered_run_is_running_again_after_its_first_end() -> None:
    rows.write([finished(state=State.REJECTED, status=Status.WARNING)])
    rows.write([running(start=LATER)])

    assert TaskRun.objects.get().state == "running"
    assert SystemTask.objects.get().status == "warning"


@pytest.mark.parametrize("together", [True, False])
def test_first_end_of_a_run_that_runs_again_counts_for_its_task_alone(together: bool) -> None:
    records = [running(start=LATER), finished()]
    for batch in [records] if together else [[one] for one in records]:
        rows.write(batch)

    assert TaskRun.objects.get().start_timestamp == LATER
    assert SystemTask.objects.get().status == "successful"


def test_replaced_task_moves_its_run_to_the_new_name() -> None:
    rows.write([finished(state=State.IGNORED, status=Status.UNKNOWN)])
    rows.write([finished(start=LATER, name="shop.refund")])

    assert TaskRun.objects.get().system_task.name == "shop.refund"
    assert set(SystemTask.objects.values_list("name", flat=True)) == {"shop.charge", "shop.refund"}


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
    rows.write([running(start=LATER, lease=OTHER)])
    rows.write([killed()])

    assert TaskRun.objects.get().state == "running"


def test_main_process_closes_no_run_that_began_after_that_end() -> None:
    """A redelivered task may run in the same worker before the main process has written the end."""
    rows.write([running(start=LATER)])
    rows.write([killed()])

    assert TaskRun.objects.get().state == "running"


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

    def waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            return bool(cursor.fetchone()[0])

    main_process = Thread(target=write)
    with transaction.atomic():
        rows.write([provisional()])
        main_process.start()
        assert eventually(waiting)
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
        finished("id-1", start=LATER),  # of another process: the message was delivered again
        running("id-1", start=LATER, lease=OTHER),
        provisional("id-1", start=LATER, lease=OTHER),
        begun("id-1", start=LATER, lease=OTHER),
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


def test_beginnings_of_one_attempt_in_two_dead_processes_end_as_the_later_one() -> None:
    rows.write([begun(start=LATER, lease=OTHER), begun()])
    run = TaskRun.objects.get()

    assert (run.start_timestamp, str(run.lease), run.state) == (LATER, OTHER, "failure")


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
def test_any_order_and_any_batches_of_one_attempt_end_in_the_same_row(
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


KINDS = running, provisional, killed, finished


@st.composite
def executions(
    draw: st.DrawFn, *makers: Callable[..., RunRecord], overlapping: bool, most: int = 3
) -> list[RunRecord]:
    """Draw the records of one attempt that is delivered, and so runs, again and again.

    Each run begins after the last one's end or, if they overlap, at any time after its start. Its
    worker may be the one that ran it before. Some of its records are left out at random.
    """
    records, start = [], NOON
    for number in range(draw(st.integers(1, most))):
        lease = draw(st.sampled_from([LEASE, OTHER]))
        lasts = draw(st.integers(0, 3))
        finish = start + timedelta(seconds=lasts)
        for make in draw(st.lists(st.sampled_from(makers), min_size=1, unique=True)):
            one = make(start=start, messages=logged(f"{make.__name__} {number}"))
            if one.finish_timestamp:
                one = replace(one, finish_timestamp=finish, duration=float(lasts))
            records.append(replace(one, lease=lease) if one.lease else one)
        pause = draw(st.integers(-lasts if overlapping else 0, 2))
        start = finish + timedelta(seconds=pause) + MOMENT
    return records


@database
@given(st.data(), cuts, executions(*KINDS, overlapping=True), st.lists(leases_between, max_size=12))
def test_any_order_and_any_batches_of_a_redelivered_attempt_end_in_its_last_end(
    data: st.DataObject,
    cuts: set[int],
    before: list[RunRecord],
    between: list[Callable[[], object] | None],
) -> None:
    start = max(one.start_timestamp or NOON for one in [finished(), *before]) + MOMENT
    end = finished(start=start, messages=logged("The last end"))
    others = data.draw(st.sampled_from([[], [running(start=start)], [killed(start=start)]]))
    write_anew([end])
    expected = stored()
    records = [queued(), *before, *others, end]
    replayed = data.draw(st.lists(st.sampled_from(records), max_size=3))
    write_anew(data.draw(st.permutations([*records, *replayed])), cuts, between)

    assert stored() == expected


@database
@given(st.data(), cuts, executions(*KINDS, overlapping=False))
def test_any_order_and_any_batches_of_a_redelivered_attempt_end_in_its_last_run(
    data: st.DataObject, cuts: set[int], before: list[RunRecord]
) -> None:
    ends = [one.finish_timestamp or one.start_timestamp or NOON for one in [queued(), *before]]
    start = max(ends) + MOMENT
    last = [running(start=start), *data.draw(st.sampled_from([[], [provisional(start=start)]]))]
    write_anew(last)
    expected, _ = stored()
    write_anew(data.draw(st.permutations([queued(), *before, *last])), cuts)

    assert stored()[0] == expected


@settings(database, max_examples=200)
# Of three runs at once, the batch may decide which one the row shows until the last one ends.
@given(st.data(), cuts, executions(running, finished, overlapping=True, most=2))
def test_batch_ends_in_the_same_runs_as_its_records_one_by_one(
    data: st.DataObject, cuts: set[int], records: list[RunRecord]
) -> None:
    order = data.draw(st.permutations(records))
    write_anew(order, range(1, len(order)))
    expected, _ = stored()
    write_anew(order, cuts)

    assert stored()[0] == expected


@database
@given(st.permutations([queued(), running(), provisional(), killed()]), cuts)
def test_any_order_of_a_killed_attempt_ends_as_the_main_process_records(
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
