"""Read the last runs of the tasks on a page of their list: a task is more than its last run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Case, F, FloatField, QuerySet, Value, When
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import pgettext

from systemtasks.conf import conf
from systemtasks.models import ScheduleEntry, SystemTask
from systemtasks.states import Status
from systemtasks.statistics import by_task

STRIP_RUNS = 20
DAY = timedelta(days=1)
LEAST_SHARE = 0.25
"""The share of failures from which a task whose last run was successful is called failing."""
HEIGHTS = {Status.ERROR: 16, Status.WARNING: 12, Status.UNKNOWN: 6, Status.SUCCESSFUL: 9}
"""The height of a run in the strip, so that it does not take colours to tell them apart."""
WIDTH, GAP, HEIGHT = 5, 1, 16

LAST_RUNS = """
    SELECT task, run.status, run.sort_timestamp AT TIME ZONE 'UTC' AS start
    FROM unnest(%s::uuid[]) AS given(task) CROSS JOIN LATERAL (
        SELECT status, sort_timestamp FROM systemtasks_taskrun
        WHERE system_task_id = task AND sort_timestamp IS NOT NULL
            AND state NOT IN ('queued', 'running')
        ORDER BY sort_timestamp DESC, id DESC LIMIT %s
    ) AS run
"""


@dataclass(slots=True)
class Lately:
    """The last runs of a task."""

    statuses: list[str] = field(default_factory=list)
    """Of its last runs that have ended, the newest first."""
    runs: int = 0
    """The number of these that started in the past day."""
    failures: int = 0
    """The number of those that failed."""
    failures_of_day: int = 0
    """All failures of the past day."""
    p95: float | None = None
    """Of the runs of the past day, in seconds."""
    next_due: datetime | None = None

    @property
    def is_failing(self) -> bool:
        """Return True if it fails now and then, and not just once, or failed last."""
        if not self.failures:
            return False
        return self.statuses[0] == Status.ERROR or self.failures / self.runs >= LEAST_SHARE

    @property
    def text(self) -> str:
        """Return how many of the last runs failed, such as `failing 9 of 12`."""
        return pgettext("systemtasks", "failing {} of {}").format(self.failures, self.runs)

    def strip(self) -> SafeString | str:
        """Return a picture of the last runs, with its text for screen readers."""
        if not self.statuses:
            return ""
        counts = Counter(self.statuses)
        words = ", ".join(f"{counts[one]} {one.label}" for one in HEIGHTS if counts[one])
        first = STRIP_RUNS - len(self.statuses)
        pieces = (
            (status, (first + index) * (WIDTH + GAP), HEIGHT - height, WIDTH, height)
            for index, status in enumerate(reversed(self.statuses))
            for height in (HEIGHTS[Status(status)],)
        )
        return format_html(
            '<svg class="st-lately" role="img" aria-label="{}: {}" viewBox="0 0 {} {}">{}</svg>',
            pgettext("systemtasks", "Last runs, the newest at the right"),
            words,
            STRIP_RUNS * (WIDTH + GAP) - GAP,
            HEIGHT,
            format_html_join(
                "",
                '<rect class="st-is-{}" x="{}" y="{}" width="{}" height="{}"/>',
                pieces,
            ),
        )


def lately(tasks: Sequence[SystemTask], now: datetime | None = None) -> dict[Any, Lately]:
    """Return how each of these tasks has been, by uuid. The number of queries is constant."""
    found = {task.pk: Lately() for task in tasks}
    if not found:
        return found
    now = now or datetime.now(UTC)
    for uuid, status, start in _last_runs(found):
        one = found[uuid]
        one.statuses.append(status)
        if start.replace(tzinfo=UTC) >= now - DAY:
            one.runs += 1
            one.failures += status == Status.ERROR
    day = by_task(now - DAY, now, tasks=[*found], histograms=["duration"])
    for uuid, total in day.items():
        found[uuid].failures_of_day = total.failures
        found[uuid].p95 = total.duration.percentile(0.95)
    due = _next_due({task.name for task in tasks})
    for task in tasks:
        found[task.pk].next_due = due.get((task.name, task.uid))
    return found


def with_failures(tasks: "QuerySet[SystemTask]") -> "QuerySet[SystemTask]":
    """Return the tasks with `failures_of_day`, to be ordered by."""
    now = datetime.now(UTC)
    by_number: dict[int, list[Any]] = {}
    for uuid, total in by_task(now - DAY, now, histograms=()).items():
        if total.failures:
            by_number.setdefault(total.failures, []).append(uuid)
    whens = [When(pk__in=uuids, then=Value(float(number))) for number, uuids in by_number.items()]
    # Not a constant, which Postgres would take for the number of a column.
    none = F("duration") * 0.0
    return tasks.alias(failures_of_day=Case(*whens, default=none, output_field=FloatField()))


def _last_runs(tasks: Iterable[Any]) -> list[tuple[Any, str, datetime]]:
    with connections[conf().DATABASE].cursor() as cursor:
        cursor.execute(LAST_RUNS, [[*tasks], STRIP_RUNS])
        found: list[tuple[Any, str, datetime]] = cursor.fetchall()
        return found


def _next_due(names: Iterable[str]) -> dict[tuple[str, str], datetime]:
    entries = ScheduleEntry.objects.filter(task__in=names, enabled=True, next_due__isnull=False)
    rows = entries.order_by("-next_due").values_list("task", "uid", "next_due")
    return {(task, uid): due for task, uid, due in rows if due}  # the last one is the next
