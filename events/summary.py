"""What each task's runs in a span of time came to."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Aggregate, Count, F, FloatField, Max, Q, QuerySet
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from systemtasks.models import TaskRun
from systemtasks.schedule import next_run
from systemtasks.states import UNFINISHED, Status

DEFAULT_SPAN = timedelta(days=1)


class Percentile(Aggregate):
    """The value that this share of the values do not exceed, interpolated between two."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(share)s) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


class SpanSerializer(serializers.Serializer[Any]):
    """The query of a summary."""

    started_from = serializers.DateTimeField(
        required=False, help_text="Runs that started then or later; by default a day ago"
    )
    started_until = serializers.DateTimeField(
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
        last_start=Max("start_timestamp"),
    )
    return grouped.order_by("system_task__name", "system_task__uid")


def with_next_runs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and when beat will send each task next."""
    answers = []
    for row in rows:
        last = row.pop("last_start")
        # Beat's schedule names tasks, and no uid of theirs.
        expected = None if row["uid"] else next_run(row["name"], last)
        answers.append({**row, "next_run": expected})
    return answers
