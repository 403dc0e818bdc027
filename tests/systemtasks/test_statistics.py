"""What the admin and the API ask of the statistics."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from systemtasks.models import Period, StatisticsProgress, SystemTask, TaskRun
from systemtasks.states import State, Status
from systemtasks.statistics import (
    HOUR,
    Times,
    by_task,
    by_time,
    compared,
    failing,
    floor,
    following,
    in_all,
    slower,
    tasks_with_runs,
)
from systemtasks.storage import folding
from tests.factories import system_task, task_run

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
ERROR: dict[str, Any] = {"state": State.FAILURE, "status": Status.ERROR}


@pytest.fixture(params=["from the runs", "from the statistics"])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function to be called after the runs are made, which has them counted or not."""
    monkeypatch.setattr(folding, "_all_have_ended", lambda _: True)

    def fold() -> None:
        if request.param == "from the statistics":
            while folding.fold():
                pass
            assert StatisticsProgress.objects.get().folded_until

    return fold


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def run(task: SystemTask, start: datetime, duration: float = 1.0, **fields: Any) -> TaskRun:
    finish = start + timedelta(seconds=duration)
    return task_run(
        task, start_timestamp=start, finish_timestamp=finish, duration=duration, **fields
    )


def test_totals_of_a_task(now: datetime, count: Any) -> None:
    task, start = system_task(), now - 3 * DAY
    for seconds in range(1, 101):
        run(task, start, seconds, wait=seconds / 10)
    run(task, start, 7.0, attempt=2, number=2, **ERROR)
    run(task, start + HOUR, state=State.REVOKED, status=Status.WARNING)
    run(system_task("other"), start)
    count()

    total = by_task(now - 4 * DAY, now)[task.pk]
    assert (total.runs, total.failures, total.retries, total.further) == (102, 1, 1, 1)
    assert total.by_status == {"successful": 100, "error": 1, "warning": 1}
    assert total.by_state == {"success": 100, "failure": 1, "revoked": 1}
    assert total.duration.sum == 5050 + 7 + 1
    assert total.wait.sum == 505
    assert total.duration.longest == 100
    assert total.duration.percentile(0.5) == pytest.approx(49, rel=0.045)
    assert total.duration.percentile(0.95) == pytest.approx(95, rel=0.045)
    assert total.duration.percentile(1) == 100
    assert total.wait.percentile(0.5) == pytest.approx(5, rel=0.045)
    assert total.last_success == start + timedelta(seconds=100)
    assert total.last_failure == start + timedelta(seconds=7)
    assert in_all(now - 4 * DAY, now).runs == 103
    assert by_task(now - 4 * DAY, now, name="other").keys() == {
        SystemTask.objects.get(name="other").pk
    }
    assert by_task(now - 4 * DAY, now, tasks=[]) == {}


@pytest.mark.parametrize("seconds", [0.000_01, 0.003, 1.0, 1.09, 59.999, 86_400.0, 1e8])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
def test_percentile_is_wrong_by_less_than_a_twentieth(
    now: datetime, count: Any, seconds: float, share: float
) -> None:
    task = system_task()
    for _ in range(3):
        task_run(task, start_timestamp=now - DAY, finish_timestamp=now, duration=seconds)
    task_run(task, start_timestamp=now - DAY, finish_timestamp=now, duration=seconds * 1000)
    count()
    found = by_task(now - 2 * DAY, now)[task.pk].duration.percentile(min(share, 0.75))
    assert found == pytest.approx(seconds, rel=0.0443)


def test_no_percentile_without_runs() -> None:
    assert Times().percentile(0.5) is None


def test_a_span_begins_and_ends_in_the_middle_of_an_hour(now: datetime, count: Any) -> None:
    task, hour = system_task(), floor(now, Period.HOUR) - 5 * HOUR
    for minutes in range(0, 180, 10):
        run(task, hour + timedelta(minutes=minutes))
    count()
    start, end = hour + timedelta(minutes=30), hour + timedelta(minutes=150)
    assert by_task(start, end)[task.pk].runs == 12
    assert by_task(start, start + timedelta(minutes=10))[task.pk].runs == 1
    assert by_task(start, start) == {}


@pytest.mark.parametrize("each", Period)
def test_bars(now: datetime, count: Any, each: Period) -> None:
    task, start = system_task(), floor(now, each) - 2 * (HOUR if each == Period.HOUR else 31 * DAY)
    moment = floor(start, each)
    run(task, moment)
    run(task, moment, **ERROR)
    run(task, following(moment, each))
    run(system_task("other"), moment)
    count()
    bars = by_time(moment, now, each, tasks=[task.pk], histograms=["duration"])
    assert [*bars][:3] == [
        moment,
        following(moment, each),
        following(following(moment, each), each),
    ]
    assert [total.by_status for total in bars.values()][:3] == [
        {"successful": 1, "error": 1},
        {"successful": 1},
        {},
    ]
    assert bars[moment].duration.percentile(0.5) == pytest.approx(1.0, rel=0.045)
    assert bars[moment].runs + 1 == by_time(moment, now, each)[moment].runs


def test_tasks_that_fail_lately_are_listed_worst_first(now: datetime, count: Any) -> None:
    healthy, flaky, broken = (system_task(name) for name in ("healthy", "flaky", "broken"))
    minute = timedelta(minutes=1)
    run(healthy, now - 5 * minute)
    run(healthy, now - 2 * DAY, **ERROR)
    for number in range(1, 5):
        run(flaky, now - number * 2 * minute, **(ERROR if number == 2 else {}))
    run(broken, now - 30 * DAY)
    run(broken, now - 29 * DAY, **ERROR)
    run(broken, now - minute, **ERROR)
    count()

    worst, other = failing(now)
    assert (worst.system_task, worst.failures, worst.runs) == (broken.pk, 1, 1)
    assert worst.since == now - 29 * DAY
    assert worst.last_success == now - 30 * DAY + timedelta(seconds=1)
    assert (other.system_task, other.failures, other.runs) == (flaky.pk, 1, 4)
    assert other.since is None
    assert failing(now, timedelta(seconds=30)) == []


def test_tasks_that_are_slower_than_before(now: datetime, count: Any) -> None:
    for name, lately in (("slow", 3.0), ("slower", 9.0), ("same", 1.0), ("new", 3.0)):
        task = system_task(name)
        for number in range(6):
            run(task, now - timedelta(hours=2 + number), lately)
            if name != "new":
                run(task, now - 3 * DAY)
    count()
    found = slower(now)
    names = {task.pk: task.name for task in SystemTask.objects.all()}
    assert [names[one.system_task] for one in found] == ["slower", "slow"]
    assert found[0].ratio() == pytest.approx(9, rel=0.09)
    day, before = (now - DAY, now), (now - 8 * DAY, now - DAY)
    assert len(compared(day, before)) == 4
    assert slower(now, fewest=7) == []


def test_tasks_are_in_the_order_of_their_names(now: datetime, count: Any) -> None:
    for name in ("b", "a", "gone", "before"):
        run(system_task(name), now - (5 * DAY if name == "before" else 3 * HOUR))
    count()
    TaskRun.objects.filter(system_task__name="gone").delete()
    SystemTask.objects.filter(name="gone").delete()
    found = tasks_with_runs(now - DAY, now)
    assert [name for _, name, _ in found] == ["a", "b"]
    assert [name for _, name, _ in tasks_with_runs(now - DAY, now, name="b")] == ["b"]


def test_an_error_that_began_before_the_last_success_ended_is_the_first_since_then(
    now: datetime, count: Any
) -> None:
    """Of one task the last success was lately, of the other one long ago."""
    hour = timedelta(hours=1)
    for name, ago in (("lately", 3 * hour), ("long ago", 5 * DAY)):
        task = system_task(name)
        run(task, now - ago - 9 * hour, **ERROR)
        run(task, now - ago - 2 * hour, 3 * 3600.0, **ERROR)
        run(task, now - ago)
        run(task, now - timedelta(minutes=1), **ERROR)
    count()
    found = {SystemTask.objects.get(pk=one.system_task).name: one.since for one in failing(now)}
    assert found == {
        "lately": now - 3 * hour - 2 * hour,
        "long ago": now - 5 * DAY - 2 * hour,
    }


def test_the_names_of_tasks_without_runs_are_not_read(now: datetime) -> None:
    task = system_task("ran")
    run(task, now - HOUR)
    system_task("never")
    with CaptureQueriesContext(connection) as queries:
        found = tasks_with_runs(now - DAY, now)
    assert found == [(task.pk, "ran", "")]
    assert " IN (" in queries[-1]["sql"]
