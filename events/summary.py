"""Summarise each task's runs in a span of time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import Any

from django.db.models import (
    Aggregate,
    Count,
    F,
    FloatField,
    Max,
    Min,
    Q,
    QuerySet,
)
from rest_framework import ISO_8601, serializers
from rest_framework.request import Request

from systemtasks.models import ScheduleEntry, TaskRun
from systemtasks.states import Status

from .errors import Overloaded
from .filters import utc_time

DEFAULT_SPAN = timedelta(days=1)
"""The time that a summary goes back by default."""

LONGEST_SPAN = timedelta(days=31)
"""The maximum span of a summary: it reads every run in its span."""

MOST_AT_ONCE = 1
"""Maximum summaries that each process makes at once.

Summaries and waiting requests together leave the other threads of a process free."""

_turns = BoundedSemaphore(MOST_AT_ONCE)

TOO_LONG = f"A summary covers {LONGEST_SPAN.days} days at the most."


class Percentile(Aggregate):
    """The value that `share` (0 to 1) of all values do not exceed, interpolated if necessary."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


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


def summaries(request: Request) -> "QuerySet[Any, Any]":
    """Return one row for each task that has finished runs in the span, ordered by name and uid.

    Raise ValidationError for a malformed query, and for a span longer than LONGEST_SPAN.
    """
    query = SpanSerializer(data=request.query_params.dict())
    query.is_valid(raise_exception=True)
    span = query.validated_data
    now = datetime.now(UTC)
    start = span.get("started_from", now - DEFAULT_SPAN)
    if min(span.get("started_until", now), now) - start > LONGEST_SPAN:
        raise serializers.ValidationError({"started_from": [TOO_LONG]})
    ended: QuerySet[Any, Any] = TaskRun.objects.finished().filter(sort_timestamp__gte=start)
    if "started_until" in span:
        ended = ended.filter(sort_timestamp__lt=span["started_until"])
    if "name" in span:
        ended = ended.filter(system_task__name=span["name"])
    tasks = {"name": F("system_task__name"), "uid": F("system_task__uid")}
    grouped: QuerySet[Any, Any] = ended.values("system_task", **tasks).annotate(
        runs=Count("id"),
        failures=Count("id", filter=Q(status=Status.ERROR)),
        duration_p50=Percentile("duration", share=0.5),
        duration_p95=Percentile("duration", share=0.95),
        duration_max=Max("duration"),
        last_success=Max("finish_timestamp", filter=Q(status=Status.SUCCESSFUL)),
    )
    return grouped.order_by("system_task__name", "system_task__uid")


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
    """Return the rows of `summaries`. Add `next_run`, the time at which beat sends the task.

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
