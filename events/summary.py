"""Summarise each task's runs in a span of time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django.db.models import Min
from rest_framework import ISO_8601, serializers
from rest_framework.request import Request

from systemtasks import statistics
from systemtasks.models import ScheduleEntry

from .errors import Overloaded
from .filters import utc_time

DEFAULT_SPAN = timedelta(days=1)
"""The time that a summary goes back by default."""

LONGEST_SPAN = timedelta(days=92)
"""The maximum span of a summary. It reads the runs themselves where they are not counted yet."""

MOST_AT_ONCE = 1
"""Maximum summaries that each process makes at once.

Summaries and waiting requests together leave the other threads of a process free."""

LAST = datetime.max.replace(tzinfo=UTC)
"""The end of a span without one: a run has started by the database's clock, not by ours."""

_turns = BoundedSemaphore(MOST_AT_ONCE)

TOO_LONG = f"A summary covers {LONGEST_SPAN.days} days at the most."


class TimeField(serializers.DateTimeField):
    """A time, in the same form as for the filters of the runs."""

    input_formats = (ISO_8601,)

    def to_internal_value(self, value: datetime | str) -> datetime:
        try:
            return utc_time(str(value))
        except ValueError:
            return super().to_internal_value("")  # raises DRF's own error for a malformed time


class SpanSerializer(serializers.Serializer[Any]):
    """The query parameters of a summary."""

    started_from = TimeField(
        required=False,
        help_text="Runs that started at this time or later, at most "
        f"{LONGEST_SPAN.days} days before `started_until` or now; by default a day ago",
    )
    started_until = TimeField(
        required=False, help_text="Runs that started before this time; by default all"
    )
    name = serializers.CharField(required=False, help_text="Only the tasks of this name")


Task = tuple[UUID, str, str]
"""The uuid, name and uid of a task."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time and the tasks that a summary is of."""

    start: datetime
    end: datetime
    name: str | None

    def tasks(self) -> list[Task]:
        """Return the tasks that have finished runs in the span, ordered by name and uid."""
        return statistics.tasks_with_runs(self.start, self.end, name=self.name)

    def summaries(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """Return one row for each of these tasks."""
        found = statistics.by_task(
            self.start,
            self.end,
            tasks=[uuid for uuid, _, _ in tasks],
            histograms=["duration"],
        )
        return [
            {"system_task": uuid, "name": name, "uid": uid, **_figures(found[uuid])}
            for uuid, name, uid in tasks
            if uuid in found
        ]


def span_of(request: Request) -> Span:
    """Return what a request asks for.

    Raise ValidationError for a malformed query, and for a span longer than LONGEST_SPAN.
    """
    query = SpanSerializer(data=request.query_params.dict())
    query.is_valid(raise_exception=True)
    given = query.validated_data
    now = datetime.now(UTC)
    start = given.get("started_from", now - DEFAULT_SPAN)
    end = given.get("started_until", LAST)
    if min(end, now) - start > LONGEST_SPAN:
        raise serializers.ValidationError({"started_from": [TOO_LONG]})
    return Span(start, end, given.get("name"))


def _figures(total: statistics.Totals) -> dict[str, Any]:
    return {
        "runs": total.runs,
        "failures": total.failures,
        "duration_p50": total.duration.percentile(0.5),
        "duration_p95": total.duration.percentile(0.95),
        "duration_max": total.duration.longest,
        "last_success": total.last_success,
    }


@contextmanager
def turn() -> Iterator[None]:
    """Reserve one of the turns to make a summary, for the length of the block.

    Raise Overloaded if MOST_AT_ONCE summaries are made already.
    """
    if not _turns.acquire(blocking=False):
        raise Overloaded("Other summaries are made at this moment.")
    try:
        yield
    finally:
        _turns.release()


def with_next_runs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a summary. Add `next_run`, the time at which beat sends the task.

    The earliest of a task's entries counts. If beat is late or stopped, that is in the past.
    """
    entries = ScheduleEntry.objects.filter(enabled=True, task__in={row["name"] for row in rows})
    due: dict[tuple[str, str], datetime | None] = {
        (name, uid): first
        for name, uid, first in entries.order_by()
        .values_list("task", "uid")
        .annotate(first=Min("next_due"))
    }
    return [{**row, "next_run": due.get((row["name"], row["uid"]))} for row in rows]
