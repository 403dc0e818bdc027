"""The statistics are what a recount of the runs says, whatever happened in between."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from math import log2
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.models import (
    Period,
    StatisticsChange,
    StatisticsProgress,
    SystemTask,
    TaskRun,
    TaskStatistics,
)
from systemtasks.states import State, Status
from systemtasks.statistics import (
    BUCKETS_PER_DOUBLING,
    LONGEST,
    SHORTEST,
    Totals,
    by_task,
    by_time,
    floor,
    folded_until,
    in_all,
)
from systemtasks.storage import folding, partitions, rows
from systemtasks.storage.folding import MARGIN, delete_expired_statistics, fold
from systemtasks.storage.retention import Protected, delete_expired
from tests.factories import system_task, task_run
from tests.systemtasks.conftest import another_connection
from tests.systemtasks.entries import record

pytestmark = pytest.mark.django_db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPAN = 70 * DAY
IN_TIME = "SET LOCAL systemtasks.moves_runs = 'on'"
"""Has the trigger note nothing, as if the hour of what is written lasted still."""


with_transactions = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_task_is_known() -> None:
    rows.forget()


@pytest.fixture(autouse=True)
def _no_transaction_is_waited_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do not wait for the transaction that a test is in, unless it has none."""
    if not request.node.get_closest_marker("django_db").kwargs.get("transaction"):
        monkeypatch.setattr(folding, "_all_have_ended", lambda _: True)


def now() -> datetime:
    return datetime.now(UTC)


def fold_all() -> None:
    while fold():
        pass


def execute(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def run_at(start: datetime, task: SystemTask | None = None, **fields: Any) -> TaskRun:
    """A run of that time, that is written in time unless its hour has been counted."""
    task = task or SystemTask.objects.first() or system_task()
    values = {"finish_timestamp": start + HOUR, "duration": 2.5, "expires": None, **fields}
    return task_run(task, start_timestamp=start, **values)


Figures = dict[Any, Any]


def figures(totals: dict[Any, Totals]) -> dict[Any, Figures]:
    """What is to be exact, of the totals that count a run."""
    return {
        key: {
            "outcomes": +total.outcomes,
            "retries": total.retries,
            "further": total.further,
            "duration": round(total.duration.sum, 6),
            "wait": round(total.wait.sum, 6),
            "durations": +total.duration.counts,
            "waits": +total.wait.counts,
            "longest": total.duration.longest,
            "last": total.last_finish,
        }
        for key, total in totals.items()
        if total.runs
    }


def everything() -> tuple[datetime, datetime]:
    return floor(now(), Period.DAY) - SPAN, now() + DAY


def read() -> dict[Any, Figures]:
    return figures(by_task(*everything()))


def recounted() -> dict[Any, Figures]:
    """The same figures, of the runs alone: as if nothing had been counted."""
    with transaction.atomic():
        StatisticsProgress.objects.all().delete()
        found = read()
        transaction.set_rollback(True)
    return found


def without_maxima(found: dict[Any, Figures]) -> dict[Any, Figures]:
    """The figures that are exact even before a change is added that takes a maximum out."""
    return {key: {**one, "longest": None, "last": None} for key, one in found.items()}


def test_hours_days_and_months_that_are_over_are_counted() -> None:
    other = system_task("other")
    for days in range(65):
        run_at(now() - days * DAY, wait=0.5)
        run_at(now() - days * DAY, other, state=State.FAILURE, status=Status.ERROR, duration=70.0)
    before = read()
    fold_all()

    assert folded_until() == floor(now() - MARGIN, Period.HOUR)
    counted = Counter(TaskStatistics.objects.values_list("period", flat=True))
    assert counted["hour"] in (126, 128, 130)
    assert counted["day"] >= 126
    assert counted["month"] >= 2
    assert read() == before == recounted()


def test_days_and_months_are_read_where_they_are_over() -> None:
    for days in range(65):
        run_at(now() - days * DAY)
    fold_all()
    month = floor(floor(now(), Period.MONTH) - DAY, Period.MONTH)
    TaskStatistics.objects.filter(period=Period.HOUR, start__lt=floor(now(), Period.DAY)).delete()
    assert in_all(month, now() + DAY).runs == (now() - month).days + 1

    TaskStatistics.objects.filter(period=Period.DAY, start__lt=floor(now(), Period.MONTH)).delete()
    assert in_all(month, now() + DAY).runs == (now() - month).days + 1
    monthly = by_time(month, now() + DAY, Period.MONTH)
    assert sum(total.runs for total in monthly.values()) == (now() - month).days + 1


def test_what_changes_in_an_hour_that_was_counted_is_added() -> None:
    moment = now() - 40 * DAY
    run = run_at(moment, state=State.FAILURE, status=Status.ERROR, duration=99.0)
    run_at(moment)
    fold_all()

    run_at(moment, attempt=2, number=3, wait=1.0)
    run.state, run.status, run.duration = State.SUCCESS, Status.SUCCESSFUL, 1.0
    run.finish_timestamp = moment + timedelta(seconds=1)
    run.save()
    run_at(moment - 5 * DAY)  # a day that had none
    assert StatisticsChange.objects.count() == 4
    assert without_maxima(read()) == without_maxima(recounted())
    fold_all()

    assert not StatisticsChange.objects.exists()
    assert read() == recounted()
    [total] = read().values()
    assert total["outcomes"] == {("success", "successful"): 4}
    assert (total["retries"], total["further"], total["longest"]) == (1, 1, 2.5)
    assert not TaskStatistics.objects.filter(runs=0).exists()


def test_maximum_of_a_day_is_not_that_of_a_run_which_was_taken_out() -> None:
    noon = floor(now(), Period.DAY) - DAY / 2
    fold_all()
    run = run_at(noon, duration=99.0)
    run_at(noon - 2 * HOUR)
    TaskRun.objects.filter(pk=run.pk).update(state=State.RUNNING, finish_timestamp=None)
    fold_all()
    [total] = read().values()
    assert (total["longest"], total["last"]) == (2.5, {"successful": noon - HOUR})


@pytest.mark.parametrize("unfinished", [State.RUNNING, State.QUEUED])
def test_run_that_is_in_progress_again_is_not_counted(unfinished: State) -> None:
    run = run_at(now() - 3 * HOUR)
    fold_all()
    TaskRun.objects.filter(pk=run.pk).update(state=unfinished, finish_timestamp=None)
    assert read() == {}
    fold_all()
    assert read() == {} == recounted()


def test_run_that_was_counted_stays_counted_when_it_is_deleted() -> None:
    run = run_at(now() - 3 * HOUR)
    run_at(now() - 3 * HOUR)
    fold_all()
    before = read()
    run.delete()
    assert read() == before
    run_at(now() - 3 * HOUR)  # now the hour is not what its runs say
    fold_all()
    [total] = read().values()
    assert total["outcomes"] == {("success", "successful"): 3}


def test_orphaned_run_that_turns_out_to_be_one_that_is_not_kept_is_not_counted() -> None:
    began = now() - 3 * HOUR
    run = run_at(
        began,
        state=State.FAILURE,
        status=Status.ERROR,
        execution=uuid4(),
        lease=uuid4(),
        seen_timestamp=began,
    )
    fold_all()
    assert read() != {}
    rows.write([record(id=run.id, execution=run.execution, save_run=False)])
    assert not TaskRun.objects.exists()
    fold_all()
    assert read() == {}


def test_runs_are_counted_before_they_expire() -> None:
    expired = now() - timedelta(minutes=1)
    run_at(now() - 2 * HOUR, expires=expired)
    current = run_at(now(), expires=expired)
    assert delete_expired([], Protected(set)) == 0
    fold_all()
    assert delete_expired([], Protected(set)) == 1
    assert [*TaskRun.objects.all()] == [current]
    [total] = read().values()
    assert total["outcomes"] == {("success", "successful"): 2}


def test_runs_that_cannot_be_counted_for_a_day_expire_all_the_same() -> None:
    run_at(now() - 3 * DAY, expires=now() - 2 * DAY)
    assert delete_expired([], Protected(set)) > 0
    assert not TaskRun.objects.exists()


@with_transactions
def test_transaction_that_began_to_write_before_the_hour_was_over_is_waited_for() -> None:
    run = run_at(now() - 2 * HOUR)
    fold_all()
    before = read()
    TaskStatistics.objects.all().delete()
    StatisticsProgress.objects.all().delete()

    statement = f"""{IN_TIME};
        INSERT INTO systemtasks_taskrun SELECT (r).* FROM (
            SELECT jsonb_populate_record(run, '{{"id": "{uuid4()}"}}') AS r
            FROM systemtasks_taskrun AS run WHERE id = '{run.id}') AS made"""
    with another_connection(statement):
        fold_all()
        assert folded_until() is None
        assert read() == before
    fold_all()
    assert folded_until() is not None
    [total] = read().values()
    assert total["outcomes"] == {("success", "successful"): 2}


@with_transactions
def test_progress_of_another_server_holds_nothing_up() -> None:
    run_at(now() - 2 * HOUR)
    until = floor(now() - MARGIN, Period.HOUR)
    StatisticsProgress.objects.create(due_until=until, transaction=2**62)
    fold_all()
    assert folded_until() == until
    assert TaskStatistics.objects.filter(period=Period.HOUR).exists()


@with_transactions
def test_only_one_process_folds() -> None:
    run_at(now() - 2 * HOUR)
    lock = "SELECT pg_advisory_xact_lock(hashtext('systemtasks.statistics'))"
    with another_connection(lock):
        assert not fold()
        assert folded_until() is None
    fold_all()
    assert folded_until() is not None


def make_and_drop(day: date, *, outliving: int) -> None:
    assert partitions._make(day)
    assert partitions.drop(day) == outliving
    execute("RESET systemtasks.moves_runs")  # as at the end of a transaction of its own
    execute("SET CONSTRAINTS ALL DEFERRED")


def test_partition_that_is_dropped_or_made_changes_nothing() -> None:
    day = (now() - 40 * DAY).date()
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    made = UUID(int=int(moment.timestamp() * 1000) << 80 | uuid4().int >> 52)
    orphaned: dict[str, Any] = {"seen_timestamp": moment, "lease": uuid4(), "expires": None}
    run_at(moment, id=made, state=State.FAILURE, status=Status.ERROR, **orphaned)
    run_at(moment, id=UUID(int=made.int + 1), expires=now() - DAY)
    fold_all()
    before = read()
    make_and_drop(day, outliving=1)
    assert not StatisticsChange.objects.exists()
    assert read() == before
    assert TaskRun.objects.count() == 1


def test_run_that_is_not_counted_yet_outlives_its_day() -> None:
    day = (now() - 2 * DAY).date()
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    made = UUID(int=int(moment.timestamp() * 1000) << 80 | uuid4().int >> 52)
    run_at(now() - 2 * HOUR, id=made, expires=now() - HOUR)
    make_and_drop(day, outliving=1)
    fold_all()
    make_and_drop(day, outliving=0)
    assert not TaskRun.objects.exists()
    assert len(read()) == 1


def test_statistics_expire_hours_first(settings: Settings) -> None:
    for days in (1, 5, 63):
        run_at(now() - days * DAY)
    fold_all()
    settings.SYSTEMTASKS = {
        **settings.SYSTEMTASKS,
        "HOURLY_STATISTICS_DAYS": 3,
        "DAILY_STATISTICS_DAYS": 62,
        "MONTHLY_STATISTICS_DAYS": 0,
    }
    assert delete_expired_statistics() == 3
    counted = Counter(TaskStatistics.objects.values_list("period", flat=True))
    assert (counted["hour"], counted["day"]) == (1, 2)
    assert counted["month"] >= 1
    assert delete_expired_statistics() == 0


# Any order of writes, corrections, folds and deletions.

OUTCOMES = [
    (State.RUNNING, Status.UNKNOWN),
    (State.SUCCESS, Status.SUCCESSFUL),
    (State.SUCCESS, Status.WARNING),
    (State.FAILURE, Status.ERROR),
    (State.RETRY, Status.WARNING),
]
DURATIONS = [None, 0.0, 1e-7, 0.01, 1.0, 1.05, 3600.0, 1e12]
Step = tuple[Any, ...]
writes = st.tuples(
    st.just("write"),
    st.integers(0, 5),  # which run
    st.sampled_from(OUTCOMES),
    st.sampled_from(DURATIONS),
    st.integers(0, 1),  # which task
    st.booleans(),  # in time
)
steps = st.lists(
    writes
    | st.tuples(st.sampled_from(["fold", "fold all", "delete", "expire"]), st.integers(0, 5)),
    max_size=25,
)


class Reference:
    """The runs as they were written, which no expiry deletes."""

    def __init__(self) -> None:
        for model in (TaskRun, SystemTask, StatisticsChange, StatisticsProgress, TaskStatistics):
            model._default_manager.all().delete()
        self.tasks = [system_task("one", expires=None), system_task("two", expires=None)]
        midnight = floor(now(), Period.DAY)
        # Two in one hour, two of another day, two of another month.
        self.times = [
            now() - 3 * HOUR,
            now() - 3 * HOUR,
            midnight - 20 * HOUR,
            midnight - HOUR,
            midnight - 40 * DAY,
            midnight - 68 * DAY,
        ]
        self.ids = [uuid4() for _ in self.times]
        self.runs: dict[int, dict[str, Any]] = {}
        self.gone: set[int] = set()

    def write(
        self,
        which: int,
        outcome: tuple[State, Status],
        duration: float | None,
        task: int,
        is_in_time: bool,
    ) -> None:
        if which in self.gone:
            return
        time = self.times[which]
        progress = StatisticsProgress.objects.first()
        over = (progress.due_until or progress.folded_until) if progress else None
        fields = {
            "id": self.ids[which],
            "system_task": self.tasks[task],
            "celery_id": str(which),
            "attempt": 1 + which % 2,
            "number": 1 + which % 3,
            "state": outcome[0],
            "status": outcome[1],
            "start_timestamp": time,
            "sort_timestamp": time,
            "duration": duration,
            "wait": None if duration is None else duration / 2,
            "finish_timestamp": time + timedelta(seconds=min(duration or 0.0, 10_000)),
            "expires": now() - HOUR,
        }
        if outcome[0] == State.RUNNING:
            fields |= {"duration": None, "finish_timestamp": None}
        with transaction.atomic():
            if is_in_time and (over is None or floor(time, Period.HOUR) >= over):
                execute(IN_TIME)
            TaskRun.objects.update_or_create(id=self.ids[which], defaults=fields)
            execute("RESET systemtasks.moves_runs")
        self.runs[which] = fields

    def delete_orphaned(self, which: int) -> None:
        """Delete a run that is taken back, like one that its task's options do not keep."""
        if which in self.gone:
            return
        TaskRun.objects.filter(id=self.ids[which]).update(
            seen_timestamp=now(), expires=now() + HOUR
        )
        TaskRun.objects.filter(id=self.ids[which]).delete()
        self.runs.pop(which, None)

    def expire(self, _: int) -> None:
        delete_expired([], Protected(set))
        left = set(TaskRun.objects.values_list("id", flat=True))
        self.gone |= {which for which in self.runs if self.ids[which] not in left}

    def count(self) -> dict[Any, Figures]:
        totals: dict[Any, Totals] = {}
        for run in self.runs.values():
            if run["state"] == State.RUNNING:
                continue
            total = totals.setdefault(run["system_task"].pk, Totals())
            total.outcomes[str(run["state"]), str(run["status"])] += 1
            total.retries += run["attempt"] > 1
            total.further += run["number"] > 1
            for name, times in (("duration", total.duration), ("wait", total.wait)):
                if (seconds := run[name]) is not None:
                    times.sum += round(min(seconds, LONGEST), 6)
                    bucket = log2(max(seconds, SHORTEST)) * BUCKETS_PER_DOUBLING // 1
                    times.counts[int(bucket)] += 1
            longest = [total.duration.longest, run["duration"]]
            total.duration.longest = max((one for one in longest if one is not None), default=None)
            finish = run["finish_timestamp"]
            last = total.last_finish.get(str(run["status"]), finish)
            total.last_finish[str(run["status"])] = max(finish, last)
        return figures(totals)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps)
def test_statistics_are_exact_after_any_order_of_events(given_steps: list[Step]) -> None:
    reference = Reference()
    actions: dict[str, Callable[..., object]] = {
        "write": reference.write,
        "fold": lambda _: fold(),
        "fold all": lambda _: fold_all(),
        "delete": reference.delete_orphaned,
        "expire": reference.expire,
    }
    for name, *values in given_steps:
        actions[name](*values)
        found = read()
        assert without_maxima(found) == without_maxima(reference.count())
    fold_all()
    found = read()
    assert without_maxima(found) == without_maxima(reference.count())
    if not reference.gone:
        assert found == reference.count() == recounted()
