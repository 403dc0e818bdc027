"""Read the facts of the home page: tasks that fail, runs, queues, workers, and the last day.

The number of queries does not depend on the number of tasks, queues or workers.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import connections
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import pgettext

from systemtasks import statistics
from systemtasks.admin_parts.acknowledging import Seen, seen_since, seen_text
from systemtasks.admin_parts.counting import COUNT_LIMIT, VALUE_LIMIT, values_of_runs
from systemtasks.admin_parts.counting import LATELY as SENT_LATELY
from systemtasks.admin_parts.filters import ENDED, LATE, LATENESS
from systemtasks.admin_parts.text import NOTHING, duration_text, local, number_text
from systemtasks.conf import conf
from systemtasks.ids import first_id, full_name, system_task_uuid
from systemtasks.models import Period, ScheduleEntry, StatisticsChange, SystemTask, TaskRun
from systemtasks.states import State, Status
from systemtasks.storage.dropped import NAME as WRITER

LONGEST_TABLE = 10
"""The rows of a table. What is behind it has all of them."""
QUEUED_LIMIT = 100_000
"""The runs that are counted as queued. If there are more, the page says so."""
GRACE = timedelta(minutes=2)
"""The time by which an entry of the schedule may be late before it is overdue."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BAR_STATUSES = (Status.ERROR, Status.WARNING, Status.UNKNOWN, Status.SUCCESSFUL)
"""The statuses of a bar, the one at the bottom first."""
BAR_WIDTH, BAR_GAP, BAR_HEIGHT = 20, 4, 100

QUEUES = """
    SELECT queue, count(*) AS waiting, min(due) AT TIME ZONE 'UTC' AS oldest,
        count(*) FILTER (WHERE due < %(late)s) AS late
    FROM (
        SELECT queue, coalesce(eta_timestamp, sent_timestamp) AS due FROM systemtasks_taskrun
        WHERE status = 'unknown' AND state = 'queued' AND sort_timestamp IS NULL LIMIT %(limit)s
    ) AS queued GROUP BY queue
"""
LATELY = """
    SELECT queue, worker, count(*) AS runs FROM systemtasks_taskrun
    WHERE sort_timestamp >= %(start)s AND sort_timestamp < %(end)s GROUP BY queue, worker
"""
WORKERS = """
    SELECT worker, (
        SELECT max(sort_timestamp) FROM systemtasks_taskrun AS run
        WHERE run.worker = given.worker AND run.id >= %(first)s
    ) AT TIME ZONE 'UTC' AS last_start
    FROM unnest(%(workers)s::text[]) AS given(worker)
"""
DROPPED = """
    SELECT coalesce(sum(substring(exception FROM '^[0-9]+')::int8), 0) AS number
    FROM systemtasks_taskrun WHERE system_task_id = %(task)s AND sort_timestamp >= %(start)s
"""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number above the tables, and the address of what is behind it."""

    title: str
    number: str
    url: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a bar that has one status."""

    status: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The runs of an hour."""

    start: datetime
    x: int
    url: str
    runs: int
    counts: "list[tuple[Status, int, str]]"
    """The number of runs of each status, with the address of their list."""
    pieces: list[Piece]

    @property
    def hour(self) -> str:
        """Return the start of the hour in the current time zone."""
        return f"{local(self.start):%H:%M}"


class Home:
    """Everything that the home page shows. Each part is read when the template asks for it."""

    bar_width = BAR_WIDTH
    bar_height = BAR_HEIGHT

    def __init__(self, site_name: str, *, may_view_runs: bool, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)
        self.site_name = site_name
        self.may_view_runs = may_view_runs

    # The lists behind the numbers.

    def _list(self, model: str, query: dict[str, Any]) -> str:
        url = reverse(f"{self.site_name}:systemtasks_{model}_changelist")
        return f"{url}?{urlencode(query)}" if query else url

    def runs_url(self, **query: Any) -> str:  # noqa: ANN401 - any value of a parameter
        """Return the address of the runs with these filters, or "" if the user may not see it."""
        return self._list("taskrun", query) if self.may_view_runs else ""

    @property
    def search_url(self) -> str:
        """Return the address of the list that is searched: the runs, or the tasks alone."""
        return self._list("taskrun" if self.may_view_runs else "systemtask", {})

    @property
    def search_help(self) -> str:
        """Return what can be searched for."""
        if self.may_view_runs:
            return pgettext("systemtasks", "Celery id, task or error")
        return pgettext("systemtasks", "Name, description or message")

    def _task_url(self, task: UUID) -> str:
        return reverse(f"{self.site_name}:systemtasks_systemtask_change", args=[task])

    def _span(self, start: datetime, end: datetime) -> dict[str, str]:
        bounds = {"from": start, "until": end - timedelta(seconds=1)}
        return {
            name: local(moment).replace(tzinfo=None).isoformat(timespec="seconds")
            for name, moment in bounds.items()
        }

    # What is read.

    @cached_property
    def _failing(self) -> list[statistics.Failing]:
        return statistics.failing(self.now)

    @cached_property
    def _seen(self) -> dict[UUID, Seen]:
        if not self.may_view_runs:
            return {}
        return seen_since(self.now - HOUR, [one.system_task for one in self._failing])

    @cached_property
    def _slower(self) -> list[statistics.Comparison]:
        return statistics.slower(self.now)

    @cached_property
    def _names(self) -> dict[UUID, str]:
        """Return the names of all tasks on the page, read at once."""
        tasks = {one.system_task for one in self._failing}
        tasks |= {one.system_task for one in self._slower}
        rows = SystemTask.objects.only("uuid", "name", "uid").filter(pk__in=tasks)
        return {row.pk: row.full_name for row in rows}

    @cached_property
    def _running(self) -> "QuerySet[TaskRun]":
        # The status has an index, the state has none.
        return TaskRun.objects.filter(status=Status.UNKNOWN, state=State.RUNNING)

    @cached_property
    def _running_now(self) -> list[dict[str, Any]]:
        columns = ("id", "worker", "sort_timestamp", "seen_timestamp", "queue", "system_task_id")
        oldest = self._running.order_by("sort_timestamp", "id")
        named = (*columns, "system_task__name", "system_task__uid")
        return [*oldest.values(*named)[: COUNT_LIMIT + 1]]

    @cached_property
    def _queued(self) -> list[dict[str, Any]]:
        late = self.now - LATENESS
        return _rows(QUEUES, late=late, limit=QUEUED_LIMIT + 1)

    @cached_property
    def _lately(self) -> list[dict[str, Any]]:
        return _rows(LATELY, start=self.now - HOUR, end=self.now)

    @cached_property
    def _overdue(self) -> list[ScheduleEntry]:
        late = ScheduleEntry.objects.filter(enabled=True, next_due__lt=self.now - GRACE)
        return [*late.order_by("next_due")[: VALUE_LIMIT + 1]]

    @cached_property
    def _hours(self) -> dict[datetime, statistics.Totals]:
        start = statistics.floor(self.now, Period.HOUR) - 23 * HOUR
        return statistics.by_time(start, self.now, Period.HOUR)

    # What is shown.

    @cached_property
    def failing(self) -> list[dict[str, Any]]:
        """Return the tasks with failures in the past hour, the worst first."""
        return [self._failing_row(one) for one in self._failing]

    def _failing_row(self, one: statistics.Failing) -> dict[str, Any]:
        task = one.system_task
        seen = self._seen.get(task)
        failures_url = self.runs_url(system_task=task, status=Status.ERROR, started="hour")
        runs_url = self.runs_url(system_task=task, started="hour", state=ENDED)
        how_many = format_html(
            # Translators: failures and runs, such as "3 of 4".
            pgettext("systemtasks", "{} of {}"),
            _link(failures_url, number_text(one.failures)),
            _link(runs_url, number_text(one.runs)),
        )
        return {
            "key": task,
            "name": self._names.get(task, str(task)),
            "url": self._task_url(task),
            "failures": one.failures,
            "failures_url": failures_url,
            "runs": one.runs,
            "runs_url": runs_url,
            "how_many": how_many,
            "seen": seen and seen_text(seen.newest, seen.count, one.failures),
            "since": one.since,
            "last_success": one.last_success,
            "success_url": self.runs_url(system_task=task, status=Status.SUCCESSFUL),
        }

    @cached_property
    def overdue(self) -> list[dict[str, Any]]:
        """Return the entries of the schedule that should have been sent."""
        return [
            {
                "key": entry.pk,
                "name": entry.full_name,
                "url": self._list("scheduleentry", {"q": entry.task}),
                "due": entry.next_due,
                "sent": entry.last_sent,
            }
            for entry in self._overdue[:LONGEST_TABLE]
        ]

    @cached_property
    def running(self) -> list[dict[str, Any]]:
        """Return the runs that have been running for longest."""
        return [
            {
                "key": run["id"],
                "name": full_name(run["system_task__name"], run["system_task__uid"]),
                "url": reverse(f"{self.site_name}:systemtasks_taskrun_change", args=[run["id"]]),
                "elapsed": duration_text(
                    max((self.now - run["sort_timestamp"]).total_seconds(), 0)
                    if run["sort_timestamp"]
                    else None
                ),
                "worker": run["worker"],
                "worker_url": self.runs_url(worker=run["worker"], state=State.RUNNING),
                "is_silent": self._is_silent(run),
                "seen": run["seen_timestamp"],
            }
            for run in self._running_now[:LONGEST_TABLE]
        ]

    def _is_silent(self, run: dict[str, Any]) -> bool:
        seen = run["seen_timestamp"]
        return seen is not None and seen < self.now - timedelta(seconds=conf().LEASE_SECONDS)

    @cached_property
    def queues(self) -> list[dict[str, Any]]:
        """Return the queues with runs that wait, or in the past hour: the fullest first."""
        rates: dict[str, int] = {}
        for row in self._lately:
            rates[row["queue"]] = rates.get(row["queue"], 0) + row["runs"]
        waiting = {row["queue"]: row for row in self._queued}
        found = sorted(
            {*rates, *waiting}, key=lambda name: (-waiting.get(name, {}).get("waiting", 0), name)
        )
        return [
            {
                "key": name,
                "name": name or NOTHING,
                "url": self.runs_url(queue=name),
                "waiting": number_text(waiting[name]["waiting"]) if name in waiting else "0",
                "waiting_url": self.runs_url(queue=name, state=State.QUEUED),
                "oldest": waiting[name]["oldest"] if name in waiting else None,
                "is_late": name in waiting and waiting[name]["late"] > 0,
                "rate": number_text(rates.get(name, 0)),
                "rate_url": self.runs_url(queue=name, started="hour"),
            }
            for name in found
        ]

    @cached_property
    def workers(self) -> list[dict[str, Any]]:
        """Return the workers of the past day: those first that are silent with runs in progress."""
        last = {}
        if names := values_of_runs("worker"):
            # The names are those of these days, too, so that few partitions are read.
            rows = _rows(WORKERS, workers=names, first=first_id(self.now - SENT_LATELY))
            last = {row["worker"]: row["last_start"] for row in rows if row["last_start"]}
        busy: dict[str, int] = {}
        silent: set[str] = set()
        for run in self._running_now:
            name = run["worker"]
            busy[name] = busy.get(name, 0) + 1
            moments = [m for m in (last.get(name), run["seen_timestamp"]) if m]
            if moments:
                last[name] = max(moments)
            if self._is_silent(run):
                silent.add(name)
        rates: dict[str, int] = {}
        for row in self._lately:
            rates[row["worker"]] = rates.get(row["worker"], 0) + row["runs"]
        alive = self.now - timedelta(seconds=conf().LEASE_SECONDS)
        found = []
        for name, moment in last.items():
            if not name or (moment < self.now - DAY and name not in busy):
                continue
            if busy.get(name) and name in silent and moment < alive:
                kind = "silent"
            elif busy.get(name):
                kind = "busy"
            else:
                kind = "idle"
            found.append(
                {
                    "key": name,
                    "name": name,
                    "url": self.runs_url(worker=name),
                    "kind": kind,
                    "busy": number_text(busy.get(name, 0)),
                    "busy_url": self.runs_url(worker=name, state=State.RUNNING),
                    "rate": number_text(rates.get(name, 0)),
                    "rate_url": self.runs_url(worker=name, started="hour"),
                    "seen": moment,
                }
            )
        order = ("silent", "busy", "idle")
        return sorted(found, key=lambda one: (order.index(one["kind"]), one["name"]))

    @cached_property
    def slower(self) -> list[dict[str, Any]]:
        """Return the tasks whose runs of the past day took longer than in the week before."""
        return [
            {
                "key": one.system_task,
                "name": self._names.get(one.system_task, str(one.system_task)),
                "url": self._task_url(one.system_task),
                "now": duration_text(one.now.percentile(0.5)),
                "before": duration_text(one.before.percentile(0.5)),
                "ratio": f"{one.ratio() or 0:.1f} ×",  # noqa: RUF001 - a multiplication sign
                "runs_url": self.runs_url(system_task=one.system_task, started="day"),
            }
            for one in self._slower[:LONGEST_TABLE]
        ]

    @cached_property
    def bars(self) -> list[Bar]:
        """Return the hours of the past day, oldest first."""
        highest = max((total.runs for total in self._hours.values()), default=0) or 1
        return [
            self._bar(index, start, total, highest)
            for index, (start, total) in enumerate(self._hours.items())
        ]

    def _bar(self, index: int, start: datetime, total: statistics.Totals, highest: int) -> Bar:
        span = {**self._span(start, start + HOUR), "state": ENDED}
        pieces, y = [], float(BAR_HEIGHT)
        counts = total.by_status
        for status in BAR_STATUSES:
            if number := counts[status]:
                # A failure among thousands of runs is visible, too.
                height = max(round(BAR_HEIGHT * number / highest, 1), 2.0)
                y = max(y - height, 0)
                pieces.append(Piece(status, round(y, 1), height))
        return Bar(
            start=start,
            x=index * (BAR_WIDTH + BAR_GAP),
            url=self.runs_url(**span),
            runs=total.runs,
            counts=[
                (status, counts[status], self.runs_url(**span, status=status))
                for status in reversed(BAR_STATUSES)
            ],
            pieces=pieces,
        )

    @property
    def chart_width(self) -> int:
        """Return the width of the chart, in its own units."""
        return len(self.bars) * (BAR_WIDTH + BAR_GAP) - BAR_GAP

    @cached_property
    def of_day(self) -> list[tuple[Status, str, str]]:
        """Return the runs of these hours by status: each their number and their list's address."""
        totals = dict.fromkeys(Status, 0)
        for total in self._hours.values():
            for status, number in total.by_status.items():
                totals[Status(status)] += number
        start = next(iter(self._hours), self.now)
        since = {"from": self._span(start, self.now)["from"], "state": ENDED}
        return [
            (status, number_text(totals[status]), self.runs_url(**since, status=status))
            for status in reversed(BAR_STATUSES)
        ]

    @property
    def _first_lost(self) -> datetime:
        """Return when the first run was due of those that were found to be lost in 24 hours."""
        return self.now - DAY - timedelta(days=conf().LOST_AFTER_DAYS)

    @cached_property
    def lost_text(self) -> str:
        """Return the number of runs that were found to be lost in the past day."""
        lost = TaskRun.objects.filter(state=State.LOST, sort_timestamp__gte=self._first_lost)
        return _bounded(lost.order_by().values("pk")[: COUNT_LIMIT + 1].count(), COUNT_LIMIT)

    @property
    def lost_url(self) -> str:
        """Return the address of the list of lost runs."""
        first = self._span(self._first_lost, self.now)["from"]
        return self.runs_url(**{"from": first}, state=State.LOST)

    @cached_property
    def late(self) -> str:
        """Return the number of queued runs that should have started an hour ago."""
        number = sum(row["late"] for row in self._queued)
        return number_text(number) if number else ""

    @property
    def queued_url(self) -> str:
        """Return the address of the list of queued runs."""
        return self.runs_url(state=State.QUEUED)

    @property
    def late_url(self) -> str:
        """Return the address of the list of queued runs that should have started an hour ago."""
        return self.runs_url(state=LATE)

    @property
    def running_url(self) -> str:
        """Return the address of the list of runs that are running."""
        return self.runs_url(state=State.RUNNING)

    @cached_property
    def tiles(self) -> list[Tile]:
        """Return the numbers above the tables."""
        failing, overdue = len(self._failing), len(self._overdue)
        tiles = [
            Tile(
                pgettext("systemtasks", "Failing"),
                number_text(failing),
                "#failing",
                "error" if failing else "",
            ),
            Tile(
                pgettext("systemtasks", "Overdue"),
                _bounded(overdue, VALUE_LIMIT),
                "#overdue",
                "warning" if overdue else "",
            ),
        ]
        if not self.may_view_runs:
            return tiles
        queued = sum(row["waiting"] for row in self._queued)
        silent = sum(worker["kind"] == "silent" for worker in self.workers)
        return [
            *tiles,
            Tile(
                pgettext("systemtasks", "Running"),
                _bounded(len(self._running_now), COUNT_LIMIT),
                self.running_url,
            ),
            Tile(
                pgettext("systemtasks", "Queued"),
                _bounded(queued, QUEUED_LIMIT),
                self.queued_url,
                "warning" if self.late else "",
            ),
            Tile(
                pgettext("systemtasks", "Silent workers"),
                number_text(silent),
                "#workers",
                "error" if silent else "",
            ),
        ]

    @cached_property
    def recorder(self) -> dict[str, Any]:
        """Return what is on record of the recorder itself."""
        task = system_task_uuid(WRITER, "")
        dropped = _rows(DROPPED, task=task, start=self.now - DAY)[0]["number"]
        newest = TaskRun.objects.filter(sort_timestamp__isnull=False).order_by("-sort_timestamp")
        return {
            "last_write": newest.values_list("sort_timestamp", flat=True).first(),
            "last_write_url": self.runs_url(),
            "dropped": number_text(int(dropped)),
            "is_dropping": dropped > 0,
            "dropped_url": self.runs_url(system_task=task, started="day"),
            "counted_until": statistics.folded_until(),
            "changes": _bounded(
                StatisticsChange.objects.order_by().values("pk")[: COUNT_LIMIT + 1].count(),
                COUNT_LIMIT,
            ),
        }


def _link(url: str, text: str) -> SafeString | str:
    return format_html('<a href="{}">{}</a>', url, text) if url else text


def _bounded(number: int, limit: int) -> str:
    return number_text(number) if number <= limit else f"> {number_text(limit)}"


def _rows(query: str, **parameters: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any column's
    """Return the rows of a query, whose times are in UTC without an offset."""
    with connections[conf().DATABASE].cursor() as cursor:
        cursor.execute(query, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, map(_with_offset, row), strict=True)) for row in cursor.fetchall()]


def _with_offset(value: Any) -> Any:  # noqa: ANN401 - of any column
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
