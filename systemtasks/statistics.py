"""Count runs: how many a task has had in a span of time, how they ended, how long they took.

Whole hours come from the statistics, in which `storage/folding.py` has counted them, also after the
runs have expired. What is not counted yet, and the parts of an hour at both ends, come from the
runs themselves. Numbers and sums are exact. Percentiles come from histograms, and may be wrong by
up to 4.4 %.

A run is of the time at which it started by the database's clock, its `sort_timestamp`. Runs that
are in progress are not counted.

Every function takes a span as two times, `start` and `end`, with an offset. A run that started at
`end` is not in the span. `tasks` are the uuids of SystemTasks, and None stands for all.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import ceil
from typing import Any
from uuid import UUID

from django.db import connections

from systemtasks.conf import conf
from systemtasks.models import Period, StatisticsProgress, SystemTask, TaskRun
from systemtasks.states import UNFINISHED, Status

BUCKETS_PER_DOUBLING = 8
"""The buckets of a histogram between a time and its double.

The value in the middle of a bucket differs from any other in it by 2 ** (1 / 16), 4.4 %, at most.
"""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SHORTEST = 1e-6  # seconds; what is shorter is in the bucket of this
LONGEST = 1e9  # seconds; what is longer counts as this in a sum

# A part is a row of numbers that can be added to others: of one run, or of many. Its columns are
# those of TaskStatistics. The statement that adds parts up is the only one: it counts the runs of
# an hour, the hours of a day, and whatever is asked for.

KEYS = ("start", "system_task", "state", "status")
_SUMS = ("runs", "retries", "further", "duration_sum", "wait_sum")
_MAXIMA = ("duration_max", "last_finish")
_PLAIN = (*_SUMS, *_MAXIMA)
_TYPES = dict.fromkeys(_SUMS, "int8") | {
    "duration_max": "float8",
    "last_finish": "timestamptz",
    "duration_buckets": "int2[]",
    "duration_counts": "int4[]",
    "wait_buckets": "int2[]",
    "wait_counts": "int4[]",
}
HISTOGRAMS = ("duration", "wait")


def values_with(histograms: Collection[str]) -> tuple[str, ...]:
    """Return the columns of a part beside its keys, with those of some histograms only."""
    parts = ("buckets", "counts")
    return (*_PLAIN, *(f"{kind}_{part}" for kind in histograms for part in parts))


VALUES = values_with(HISTOGRAMS)
"""The columns of a part beside its keys."""

SIGN = "sign::int4"
"""The number of runs that a row of StatisticsChange adds, for `parts_of_runs`."""

_SCALE = f"(ln(2::float8) / {BUCKETS_PER_DOUBLING})"
_ENDED = f"state NOT IN ({', '.join(repr(str(state)) for state in UNFINISHED)})"


def parts_of_runs(table: str, condition: str, sign: str = "1") -> str:
    """Return the query of a part for each ended run in the table that meets the condition.

    `sign` is 1, or -1 for a run that is to be taken out, as SQL.
    """
    columns = []
    for kind in HISTOGRAMS:
        bucket = f"floor(ln(greatest({kind}, {SHORTEST})) / {_SCALE})::int2"
        microseconds = f"round(least(coalesce({kind}, 0), {LONGEST}) * 1e6)::int8"
        is_empty = f"CASE WHEN {kind} IS NULL THEN '{{}}'"
        columns += [
            f"{sign} * {microseconds} AS {kind}_sum",
            f"{is_empty}::int2[] ELSE ARRAY[{bucket}] END AS {kind}_buckets",
            f"{is_empty}::int4[] ELSE ARRAY[{sign}] END AS {kind}_counts",
        ]
    return f"""
        SELECT date_trunc('hour', sort_timestamp, 'UTC') AS start, system_task_id AS system_task,
            state, status, {sign} AS runs, {sign} * (attempt > 1)::int AS retries,
            {sign} * (number > 1)::int AS further,
            CASE WHEN {sign} > 0 THEN duration END AS duration_max,
            CASE WHEN {sign} > 0 THEN finish_timestamp END AS last_finish,
            {", ".join(columns)}
        FROM {table} WHERE {_ENDED} AND {condition}
    """


def sum_of_parts(parts: str, keys: Sequence[str], histograms: Collection[str] = HISTOGRAMS) -> str:
    """Return the query that adds up parts, given their query. One row for each value of the keys.

    Its columns are the keys, and those of `values_with` for the same histograms.
    """
    # The plain numbers and each histogram are added up alone, and put into one row by grouping them
    # again. To join them may take a nested loop, since Postgres knows little of how many there are.
    columns = values_with(histograms)
    grouped = f"GROUP BY {', '.join(keys)}" if keys else ""

    def select(values: Mapping[str, str], source: str) -> str:
        own = [f"{values.get(name, f'NULL::{_TYPES[name]}')} AS {name}" for name in columns]
        return f"SELECT {', '.join((*keys, *own))} FROM {source} {grouped}"

    plain = {name: f"sum({name})::int8" for name in _SUMS}
    plain |= {name: f"max({name})" for name in _MAXIMA}
    queries = [select(plain, "part")]
    for kind in histograms:
        with_bucket = ", ".join((*keys, "bucket"))
        # To unnest in the list of columns costs half of what it does in FROM.
        entries = f"""
            SELECT {with_bucket}, sum(number)::int4 AS number FROM (
                SELECT {", ".join((*keys, f"unnest({kind}_buckets) AS bucket"))},
                    unnest({kind}_counts) AS number
                FROM part
            ) AS entry GROUP BY {with_bucket} HAVING sum(number) <> 0
        """
        arrays = {
            f"{kind}_buckets": "array_agg(bucket ORDER BY bucket)",
            f"{kind}_counts": "array_agg(number ORDER BY bucket)",
        }
        queries.append(select(arrays, f"({entries}) AS counted"))
    whole = [f"max({name}) AS {name}" for name in _PLAIN]
    whole += [f"coalesce(max({name}), '{{}}') AS {name}" for name in columns[len(_PLAIN) :]]
    return f"""
        WITH part AS ({parts})
        SELECT {", ".join((*keys, *whole))} FROM ({" UNION ALL ".join(queries)}) AS added {grouped}
    """


@dataclass(slots=True)
class Times:
    """A histogram of the durations or the waits of runs, in seconds."""

    sum: float = 0.0
    counts: Counter[int] = field(default_factory=Counter)
    """The number of runs in each bucket."""
    longest: float | None = None
    """Exact. Empty for the times that runs waited."""

    def percentile(self, share: float) -> float | None:
        """Return the time that this share of the runs, 0 to 1, did not exceed, to 4.4 %.

        Return None without runs. If it is the time of the longest run, it is exact.
        """
        rank = max(ceil(share * self.counts.total()), 1)
        if rank == self.counts.total() and self.longest is not None:
            return self.longest
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                middle: float = 2.0 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING)
                return middle if self.longest is None else min(middle, self.longest)
        return None


@dataclass(slots=True)
class Totals:
    """The ended runs of a task, or of a span."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The number of runs for each state and status."""
    retries: int = 0
    """The runs that were a retry."""
    further: int = 0
    """The runs that were a further execution of their message."""
    duration: Times = field(default_factory=Times)
    wait: Times = field(default_factory=Times)
    last_finish: dict[str, datetime] = field(default_factory=dict)
    """When the last run ended, for each status."""

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return self.outcomes.total()

    @property
    def failures(self) -> int:
        """Return the number of runs with the status `error`."""
        return self.by_status[Status.ERROR]

    @property
    def by_status(self) -> Counter[str]:
        """Return the number of runs for each status."""
        return _added((status, number) for (_, status), number in self.outcomes.items())

    @property
    def by_state(self) -> Counter[str]:
        """Return the number of runs for each final state."""
        return _added((state, number) for (state, _), number in self.outcomes.items())

    @property
    def last_success(self) -> datetime | None:
        """Return when the last run ended that was successful."""
        return self.last_finish.get(Status.SUCCESSFUL)

    @property
    def last_failure(self) -> datetime | None:
        """Return when the last run ended with the status `error`."""
        return self.last_finish.get(Status.ERROR)

    def _add(self, row: Mapping[str, Any]) -> None:
        """Add a row of `sum_of_parts`."""
        self.outcomes[row["state"], row["status"]] += row["runs"]
        self.retries += row["retries"]
        self.further += row["further"]
        self.duration.sum += row["duration_sum"] / 1e6
        self.wait.sum += row["wait_sum"] / 1e6
        longest = (self.duration.longest, row["duration_max"])
        self.duration.longest = max((one for one in longest if one is not None), default=None)
        for kind, times in (("duration", self.duration), ("wait", self.wait)):
            buckets, counts = row.get(f"{kind}_buckets", ()), row.get(f"{kind}_counts", ())
            for bucket, count in zip(buckets, counts, strict=True):
                times.counts[bucket] += count
        if finish := row["last_finish"]:
            status, finish = row["status"], finish.replace(tzinfo=UTC)
            self.last_finish[status] = max(finish, self.last_finish.get(status, finish))


def by_task(
    start: datetime,
    end: datetime,
    *,
    tasks: Collection[UUID] | None = None,
    name: str | None = None,
    histograms: Collection[str] = HISTOGRAMS,
) -> dict[UUID, Totals]:
    """Return the totals of each task that has ended runs in the span; of those of a name, if given.

    There are percentiles of `histograms` only: of the duration, of the wait, of both or of none.
    They take the most time.
    """
    reader = _Reader(start, end, tasks, name)
    found: dict[UUID, Totals] = {}
    for row in reader.rows(("system_task", "state", "status"), histograms):
        found.setdefault(row["system_task"], Totals())._add(row)
    return found


def durations_by_task(
    start: datetime, end: datetime, *, tasks: Collection[UUID] | None = None
) -> dict[UUID, Times]:
    """Return the durations of each task's ended runs in the span, in less time than `by_task`."""
    return {
        row["system_task"]: Times(
            row["duration_sum"] / 1e6,
            Counter(dict(zip(row["duration_buckets"], row["duration_counts"], strict=True))),
            row["duration_max"],
        )
        for row in _Reader(start, end, tasks).rows(("system_task",), ["duration"])
        if row["runs"]
    }


NAMED_AT_ONCE = 10_000
"""Tasks of which a query has the uuids."""


def tasks_with_runs(
    start: datetime, end: datetime, *, name: str | None = None
) -> list[tuple[UUID, str, str]]:
    """Return uuid, name and uid of the tasks that have ended runs in the span, by name and uid.

    A task that has been deleted with its last run has no name any more, and is left out.
    """
    with_runs = _Reader(start, end, None, name).tasks()
    tasks = SystemTask.objects.using(conf().DATABASE)
    if name is not None:
        tasks = tasks.filter(name=name)
    if len(with_runs) <= NAMED_AT_ONCE:  # there may be far more tasks without runs
        tasks = tasks.filter(uuid__in=with_runs)
    return [
        (uuid, name, uid)
        for uuid, name, uid in tasks.order_by("name", "uid").values_list("uuid", "name", "uid")
        if uuid in with_runs
    ]


def in_all(
    start: datetime,
    end: datetime,
    *,
    tasks: Collection[UUID] | None = None,
    histograms: Collection[str] = HISTOGRAMS,
) -> Totals:
    """Return the totals of all tasks together, also of those that have no row any more."""
    total = Totals()
    for row in _Reader(start, end, tasks).rows(("state", "status"), histograms):
        total._add(row)
    return total


def by_time(
    start: datetime,
    end: datetime,
    each: Period,
    *,
    tasks: Collection[UUID] | None = None,
    histograms: Collection[str] = (),
) -> dict[datetime, Totals]:
    """Return the totals of each hour, day or month of UTC in the span, oldest first.

    One without runs is there, too. The first and the last are as much of it as is in the span.
    """
    found = {moment: Totals() for moment in _starts(floor(start, each), end, each)}
    reader = _Reader(start, end, tasks, coarsest=each)
    for row in reader.rows(("start", "state", "status"), histograms, each=each):
        found[row["start"].replace(tzinfo=UTC)]._add(row)
    return found


@dataclass(frozen=True, slots=True)
class Failing:
    """A task with runs that have ended as errors lately."""

    system_task: UUID
    failures: int
    runs: int
    since: datetime | None
    """When the first one started of those after the last success that are still on record."""
    last_success: datetime | None
    """When the last success ended, in the past 31 days."""


def failing(now: datetime, within: timedelta = HOUR) -> list[Failing]:
    """Return the tasks with errors among the runs that started within that time, worst first.

    Looks at the errors first, so that it costs little where there are few.
    """
    alias, start = conf().DATABASE, now - within
    errors = TaskRun.objects.using(alias).filter(status=Status.ERROR)
    lately = errors.filter(sort_timestamp__gte=start, sort_timestamp__lt=now)
    tasks = [*lately.order_by().values_list("system_task", flat=True).distinct()]
    if not tasks:
        return []
    counted = by_task(start, now, tasks=tasks, histograms=())
    month = by_task(now - 31 * DAY, now, tasks=tasks, histograms=())
    successes = {task: month[task].last_success for task in counted}
    longest = {task: month[task].duration.longest or 0.0 for task in counted}
    since = _failing_since(successes, longest, now)
    found = [
        Failing(task, totals.failures, totals.runs, since.get(task), successes[task])
        for task, totals in counted.items()
    ]
    return sorted(found, key=lambda one: (-one.failures / one.runs, -one.failures))


FAILING_SINCE = """
    SELECT task, (
        SELECT sort_timestamp FROM systemtasks_taskrun
        WHERE system_task_id = task AND status = 'error' AND sort_timestamp < %s
            AND sort_timestamp >= success - before * interval '1 second'
            AND finish_timestamp > success
        ORDER BY sort_timestamp LIMIT 1
    ) AT TIME ZONE 'UTC' AS since
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::float8[]) AS given(task, success, before)
"""
"""The start of each task's first error after its last success.

It looks from some seconds before the end of the success, since the run may have taken that long.
That condition is for the index: a frequent task has thousands of runs in a day.
"""
FAILING_SINCE_LATELY = """
    WITH error AS MATERIALIZED (
        SELECT system_task_id, sort_timestamp, finish_timestamp FROM systemtasks_taskrun
        WHERE status = 'error' AND sort_timestamp < %s AND sort_timestamp >= %s
    )
    SELECT task, min(sort_timestamp) AT TIME ZONE 'UTC' AS since
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::float8[]) AS given(task, success, before)
    JOIN error ON system_task_id = task
        AND sort_timestamp >= success - before * interval '1 second' AND finish_timestamp > success
    GROUP BY task
"""
"""The same of tasks whose last success was lately, from the errors since the time given first.

One look at each partition serves all of these tasks.
"""
CLOCKS_DIFFER = 600.0
"""Seconds by which the clock of a host, which has the end, may differ from the database's."""


def _failing_since(
    successes: Mapping[UUID, datetime | None], longest: Mapping[UUID, float], now: datetime
) -> dict[UUID, datetime]:
    start = now - DAY
    lately, others = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for task, end in successes.items():
        before = min(longest[task] + CLOCKS_DIFFER, DAY.total_seconds())
        if end is None:
            others.append((task, datetime.min.replace(year=1000, tzinfo=UTC), 0.0))
        else:
            is_lately = end - timedelta(seconds=before) >= start
            (lately if is_lately else others).append((task, end, before))
    rows = []
    if lately:
        rows += _execute(FAILING_SINCE_LATELY, [now, start, *map(list, zip(*lately, strict=True))])
    if others:
        rows += _execute(FAILING_SINCE, [now, *map(list, zip(*others, strict=True))])
    return {row["task"]: row["since"].replace(tzinfo=UTC) for row in rows if row["since"]}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The durations of a task's runs in a span, and in one before it."""

    system_task: UUID
    now: Times
    before: Times

    def ratio(self, share: float = 0.5) -> float | None:
        """Return by how much a percentile of the duration has changed: 2.0 if it has doubled.

        Return None if there were no runs in one of the spans.
        """
        now, before = self.now.percentile(share), self.before.percentile(share)
        return now / before if now and before else None


Span = tuple[datetime, datetime]
"""A start, and an end that is not in it."""


def compared(
    span: Span, before: Span, *, tasks: Collection[UUID] | None = None
) -> list[Comparison]:
    """Return the tasks with runs in a span, each with what it did in the span before."""
    now, earlier = (durations_by_task(*one, tasks=tasks) for one in (span, before))
    return [Comparison(task, times, earlier.get(task, Times())) for task, times in now.items()]


def slower(now: datetime, *, ratio: float = 1.5, fewest: int = 5) -> list[Comparison]:
    """Return the tasks whose median duration is that much longer than usual, the slowest first.

    The past 24 whole hours are compared with the seven whole days before, so that nearly all is
    read from the statistics. A task needs so many runs in both spans, since a few say little.
    """
    end = floor(now, Period.HOUR)
    midnight = floor(end - DAY, Period.DAY)
    found = [
        (by, one)
        for one in compared((end - DAY, end), (midnight - 7 * DAY, midnight))
        if (by := one.ratio()) is not None
        and by >= ratio
        and min(one.now.counts.total(), one.before.counts.total()) >= fewest
    ]
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def folded_until() -> datetime | None:
    """Return the time before which runs are in the statistics; None if none is yet."""
    progress = StatisticsProgress.objects.using(conf().DATABASE).first()
    until = progress and progress.folded_until
    return until.astimezone(UTC) if until else None


def floor(moment: datetime, period: Period) -> datetime:
    """Return the start of the hour, day or month of UTC that the moment is in."""
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if period != Period.HOUR:
        start = start.replace(hour=0)
    return start.replace(day=1) if period == Period.MONTH else start


def following(start: datetime, period: Period) -> datetime:
    """Return the start of the next hour, day or month, given the start of one."""
    if period == Period.MONTH:
        return (start + 31 * DAY).replace(day=1)
    return start + (HOUR if period == Period.HOUR else DAY)


class _Reader:
    """Reads the parts of a span, from the statistics and from the runs."""

    def __init__(
        self,
        start: datetime,
        end: datetime,
        tasks: Collection[UUID] | None = None,
        name: str | None = None,
        *,
        coarsest: Period = Period.MONTH,
    ) -> None:
        # Read before the parts are, in another statement, so that Postgres knows how few runs it
        # has to read. If more is folded meanwhile, it is read from the runs.
        until = folded_until()
        self._hours, self._raw = (start, start), [(start, end)]
        self._periods: dict[Period, list[datetime]] = {}
        if until is not None and start < min(end, until):
            first, last = _ceil(start, Period.HOUR), floor(min(end, until), Period.HOUR)
            if first < last:
                self._hours, self._raw = (first, last), [(start, first), (last, end)]
                self._periods = _cover(first, last, coarsest)
        self._tasks = tasks
        self._name = name

    def rows(
        self, keys: Sequence[str], histograms: Collection[str], *, each: Period | None = None
    ) -> list[dict[str, Any]]:
        parts, parameters = self._parts()
        if each:
            columns = ", ".join((*KEYS[1:], *VALUES))
            parts = (
                f"SELECT date_trunc('{each}', start, 'UTC') AS start, {columns} "
                f"FROM ({parts}) AS exact"
            )
        values = values_with(histograms)
        columns = ", ".join(
            f"{name} AT TIME ZONE 'UTC' AS {name}" if name in ("start", "last_finish") else name
            for name in (*keys, *values)
        )
        query = sum_of_parts(parts, keys, histograms)
        return _execute(f"SELECT {columns} FROM ({query}) AS added", parameters)

    def tasks(self) -> set[UUID]:
        """Return the tasks that have runs."""
        parts, parameters = self._parts()
        query = (
            f"SELECT system_task FROM ({parts}) AS part GROUP BY system_task HAVING sum(runs) > 0"
        )
        return {row["system_task"] for row in _execute(query, parameters)}

    def _parts(self) -> tuple[str, list[Any]]:
        """Return the query of all parts, and its parameters."""
        columns = ", ".join((*KEYS, *VALUES))
        queries: list[str] = []
        parameters: list[Any] = []
        for period, starts in self._periods.items():
            of_tasks, values = self._condition("system_task")
            queries.append(
                f"SELECT {columns} FROM systemtasks_taskstatistics "
                f"WHERE period = %s AND start = ANY(%s) AND {of_tasks}"
            )
            parameters += [str(period), starts, *values]
        changes = ("systemtasks_statisticschange", SIGN, [self._hours])
        runs = (TaskRun._meta.db_table, "1", self._raw)
        for table, sign, spans in (changes, runs):
            of_tasks, values = self._condition("system_task_id")
            spans = [(first, end) for first, end in spans if first < end]
            if not spans:
                continue
            # One query of both ends, since each is planned for all partitions.
            between = " OR ".join(["(sort_timestamp >= %s AND sort_timestamp < %s)"] * len(spans))
            one = parts_of_runs(table, f"({between}) AND {of_tasks}", sign)
            queries.append(f"SELECT {columns} FROM ({one}) AS one")
            parameters += [*chain.from_iterable(spans), *values]
        if not queries:
            return self._nothing(columns), []
        return " UNION ALL ".join(queries), parameters

    def _condition(self, column: str) -> tuple[str, list[Any]]:
        """Return the condition that a row is of the tasks, and its parameters."""
        if self._tasks is not None:
            return f"{column} = ANY(%s)", [[*self._tasks]]
        if self._name is not None:
            return (
                f"{column} IN (SELECT uuid FROM systemtasks_systemtask WHERE name = %s)",
                [self._name],
            )
        return "true", []

    @staticmethod
    def _nothing(columns: str) -> str:
        return f"SELECT {columns} FROM systemtasks_taskstatistics WHERE false"


def _cover(start: datetime, end: datetime, coarsest: Period) -> dict[Period, list[datetime]]:
    """Return the months, days and hours that make up the whole hours, as few as there may be."""
    periods = [*Period]
    periods = periods[: periods.index(coarsest) + 1]
    covering: dict[Period, list[datetime]] = {}
    left = [(start, end)]
    for period in reversed(periods):
        spans, left = left, []
        for first, last in spans:
            inner = _ceil(first, period), floor(last, period)
            if inner[0] >= inner[1]:
                left.append((first, last))
                continue
            covering.setdefault(period, []).extend(_starts(*inner, period))
            left += [(first, inner[0]), (inner[1], last)]
    return covering


def _ceil(moment: datetime, period: Period) -> datetime:
    start = floor(moment, period)
    return start if start == moment else following(start, period)


def _starts(start: datetime, end: datetime, period: Period) -> Iterator[datetime]:
    while start < end:
        yield start
        start = following(start, period)


def _added(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    added: Counter[str] = Counter()
    for key, number in pairs:
        added[key] += number
    return added


def _execute(query: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    with connections[conf().DATABASE].cursor() as cursor:
        cursor.execute(query, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
