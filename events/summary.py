"""What each task's runs in a span of time came to."""

from collections.abc import Sequence
from datetime import datetime, timedelta
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

from events.filters import TIME
from systemtasks.capture.celery.schedule import next_run, scheduled_names
from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.reading import BEAT
from systemtasks.states import UNFINISHED, Status

DEFAULT_SPAN = timedelta(days=1)


class Percentile(Aggregate):
    """The value that this share of the values do not exceed, interpolated between two."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


class TimeField(serializers.DateTimeField):
    """A time in the form that the filters of the runs take."""

    def to_internal_value(self, value: datetime | str) -> datetime:
        # An empty text is what DRF refuses in its own words.
        return super().to_internal_value(value if TIME.fullmatch(str(value)) else "")


class SpanSerializer(serializers.Serializer[Any]):
    """The query of a summary."""

    started_from = TimeField(
        required=False, help_text="Runs that started then or later; by default a day ago"
    )
    started_until = TimeField(
        required=False, help_text="Runs that started before then; by default all"
    )
    name = serializers.CharField(required=False, help_text="Only the tasks of this name")


def summaries(request: Request) -> "QuerySet[Any, Any]":
    """A row a task, in the order of their names; raises ValidationError for a malformed query."""
    query = SpanSerializer(data=request.query_params.dict())
    query.is_valid(raise_exception=True)
    span = query.validated_data
    ended: QuerySet[Any, Any] = TaskRun.objects.exclude(state__in=UNFINISHED).filter(
        start_timestamp__gte=span.get("started_from", timezone.now() - DEFAULT_SPAN)
    )
    if "started_until" in span:
        ended = ended.filter(start_timestamp__lt=span["started_until"])
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


def with_next_runs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and when beat will send each task next."""
    # Beat's schedule names tasks, and no uid of theirs.
    names = scheduled_names()
    keys = [row["system_task"] for row in rows if not row["uid"] and row["name"] in names]
    sent = _last_sent(keys) if keys else {}
    return [
        {**row, "next_run": (last := sent.get(row["system_task"])) and next_run(row["name"], last)}
        for row in rows
    ]


def _last_sent(keys: Sequence[UUID]) -> dict[UUID, datetime | None]:
    """When the last run of each of these tasks that beat sent was sent, or else started.

    Where no run says that beat sent it, as in rows of old, the last run of all counts.
    """
    runs = (
        TaskRun.objects.filter(system_task=OuterRef("pk"), start_timestamp__isnull=False)
        .order_by("-start_timestamp", "-id")
        .values(moment=Coalesce("sent_timestamp", "start_timestamp"))
    )
    of_beat = runs.filter(sender__startswith=BEAT, attempt=1)
    last = Coalesce(Subquery(of_beat[:1]), Subquery(runs[:1]))
    return dict(SystemTask.objects.filter(pk__in=keys).order_by().values_list("pk", last))
