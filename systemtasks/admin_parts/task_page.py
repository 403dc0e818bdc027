"""Read the runs for the page of a task: 30 days as bars, their durations, and those that wait."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.http import urlencode

from systemtasks import statistics
from systemtasks.admin_parts.filters import ENDED
from systemtasks.admin_parts.text import duration_text, number_text
from systemtasks.models import Period, SystemTask, TaskRun, TaskRunQuerySet
from systemtasks.states import State, Status

DAYS = 30
WEEK = timedelta(days=7)
HEIGHT = 60
"""The height of the drawing of the days, in units of its own."""
STEP, BAR = 10, 8
"""The distance of two bars, and the width of one."""
LOWEST = 2
"""The least height of a part of a bar, so that it can be seen."""
ORDER = (Status.ERROR, Status.WARNING, Status.SUCCESSFUL, Status.UNKNOWN)
"""The parts of a bar, from below."""
WAITING = 10
"""The queued runs, and the running ones, that are shown."""
COUNT_LIMIT = 1_000
"""The queued runs, and the running ones, that are counted."""


@dataclass(frozen=True, slots=True)
class BarPart:
    """The runs of a day with one status."""

    status: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Day:
    """A day of UTC, its runs, and its bar."""

    start: datetime
    runs: int
    failures: int
    warnings: int
    x: int
    parts: list[BarPart]
    query: str
    """For the list of the day's runs."""


@dataclass(frozen=True, slots=True)
class Month:
    """The past DAYS days of a task."""

    days: list[Day]
    runs: int
    failures: int
    most: int
    """The runs of the day with the most."""

    @property
    def width(self) -> int:
        """Return the width of the drawing."""
        return DAYS * STEP

    @property
    def share(self) -> str:
        """Return how many of the runs have failed: `1.4 %`."""
        return f"{self.failures / self.runs * 100:.1f} %" if self.runs else ""


def month_of(task: SystemTask) -> Month:
    """Return the past DAYS days of a task, today included."""
    now = timezone.now()
    start = statistics.floor(now, Period.DAY) - timedelta(days=DAYS - 1)
    found = statistics.by_time(start, now, Period.DAY, tasks=[task.pk])
    most = max((totals.runs for totals in found.values()), default=0)
    days = []
    for number, (moment, totals) in enumerate(sorted(found.items())):
        query = {
            "system_task": str(task.pk),
            "from": moment.isoformat(),
            "until": (moment + timedelta(days=1, microseconds=-1)).isoformat(),
            "state": ENDED,
        }
        by_status = totals.by_status
        days.append(
            Day(
                moment,
                totals.runs,
                totals.failures,
                by_status[Status.WARNING],
                number * STEP,
                [*_parts(by_status, most)],
                urlencode(query),
            )
        )
    return Month(days, sum(day.runs for day in days), sum(day.failures for day in days), most)


def _parts(by_status: Any, most: int) -> Iterator[BarPart]:  # noqa: ANN401 - a Counter
    below = 0.0
    for status in ORDER:
        if runs := by_status[status]:
            height = min(max(runs / most * HEIGHT, LOWEST), HEIGHT - below)
            below += height
            yield BarPart(str(status), round(HEIGHT - below, 1), round(height, 1))


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of the durations of the past week, beside that of the week before."""

    name: str
    now: str
    before: str
    change: str
    """In percent: `+40 %`. Empty if there is none, or if one of both is missing."""
    is_slower: bool


def percentiles_of(task: SystemTask) -> list[Percentile]:
    """Return p50 and p95 of a task's past week. Return nothing if it had no run."""
    now = timezone.now()
    found = statistics.compared((now - WEEK, now), (now - 2 * WEEK, now - WEEK), tasks=[task.pk])
    return [_percentile(one, share) for one in found for share in (0.5, 0.95)]


def _percentile(of: statistics.Comparison, share: float) -> Percentile:
    ratio = of.ratio(share)
    percent = 0 if ratio is None else round((ratio - 1) * 100)
    change = f"{percent:+} %" if percent else ""
    return Percentile(
        f"p{share * 100:.0f}",
        duration_text(of.now.percentile(share)),
        duration_text(of.before.percentile(share)),
        change,
        ratio is not None and ratio > 1.25,
    )


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The runs of a task in a state that is no end."""

    state: str
    runs: list[TaskRun]
    more: str
    """The number of the others, or "" if there are none."""
    query: str
    """For the list of all of them."""


def unfinished_of(task: SystemTask, columns: tuple[str, ...]) -> list[Unfinished]:
    """Return the running and the queued runs of a task, oldest first, if it has any."""
    groups = []
    runs = TaskRun.objects.filter(system_task=task.pk, status=Status.UNKNOWN)
    runs = runs.order_by("sort_timestamp", "id")  # that of an index, from its end
    # Nearly all runs that have started and are of this status are running: an index finds them.
    running = runs.filter(sort_timestamp__isnull=False, state=State.RUNNING)
    queued = runs.filter(sort_timestamp__isnull=True, state=State.QUEUED)
    for state, runs in ((State.RUNNING, running), (State.QUEUED, queued)):
        shown = [*runs.only(*columns)[: WAITING + 1]]
        if not shown:
            continue
        query = urlencode({"system_task": str(task.pk), "state": str(state)})
        groups.append(Unfinished(str(state), shown[:WAITING], _more(runs, len(shown)), query))
    return groups


def _more(runs: TaskRunQuerySet, shown: int) -> str:
    if shown <= WAITING:
        return ""
    count = runs.values("pk")[: COUNT_LIMIT + 1].count()
    text = number_text(min(count, COUNT_LIMIT) - WAITING)
    return f"{text}+" if count > COUNT_LIMIT else text
