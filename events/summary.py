"""Summarise each task's runs in a span of time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django.db.models import (
    Aggregate,
    Count,
    F,
    FloatField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
)
from django.db.models.functions import Coalesce
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from events.errors import Overloaded
from events.filters import utc_time
from systemtasks.capture.celery.schedule import next_run, scheduled_names
from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.journal_line import BEAT
from systemtasks.states import Status

DEFAULT_SPAN = timedelta(days=1)
"""The time that a summary goes back by default."""

LONGEST_SPAN = timedelta(days=31)
"""Of a summary: it reads every run in its span."""

MOST_AT_ONCE = 1
"""Summaries that each process makes at once. With those who wait for a run to end, they leave the
other threads of a process to the other requests."""

_turns = BoundedSemaphore(MOST_AT_ONCE)

TOO_LONG = f"A summary covers {LONGEST_SPAN.days} days at the most."


class Percentile(Aggregate):
    """The value that `share` (0 to 1) of all values do not exceed; interpolated, if need be."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


class TimeField(serializers.DateTimeField):
    """A time, in the same form as for the filters of the runs."""

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

    Raises ValidationError for a malformed query, and for a span longer than LONGEST_SPAN.
    """
    query = SpanSerializer(data=request.query_params.dict())
    query.is_valid(raise_exception=True)
    span = query.validated_data
    now = timezone.now()
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
    """Hold one of the turns to make a summary while the block lasts.

    Raises Overloaded where MOST_AT_ONCE summaries are made already.
    """
    if not _turns.acquire(blocking=False):
        raise Overloaded("Other summaries are made at this moment.")
    try:
        yield
    finally:
        _turns.release()


def with_next_runs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `summaries` with `next_run`: when beat is to send the task."""
    # Beat's schedule knows tasks by their name alone.
    names = scheduled_names()
    keys = [row["system_task"] for row in rows if not row["uid"] and row["name"] in names]
    sent = _last_sent(keys) if keys else {}
    return [
        {**row, "next_run": (last := sent.get(row["system_task"])) and next_run(row["name"], last)}
        for row in rows
    ]


def _last_sent(keys: Sequence[UUID]) -> dict[UUID, datetime | None]:
    """Return, by a task's uuid, when beat last sent it.

    A run that does not know when it was sent counts from its start. A task of which no run says
    that beat sent it, as in rows of older releases, counts from its last run.
    """
    runs = (
        TaskRun.objects.filter(system_task=OuterRef("pk"))
        .started()
        .newest_first()
        .values(moment=Coalesce("sent_timestamp", "start_timestamp"))
    )
    of_beat = runs.filter(sender__startswith=BEAT, attempt=1)
    last = Coalesce(Subquery(of_beat[:1]), Subquery(runs[:1]))
    return dict(SystemTask.objects.filter(pk__in=keys).order_by().values_list("pk", last))
