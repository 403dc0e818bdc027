"""Serialize tasks, runs and summaries, with their fields in the contract's order."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import QuerySet
from django.db.models.functions import Cast
from orjson import Fragment
from rest_framework import serializers

from systemtasks.models import SystemTask
from systemtasks.states import State, Status

TASK_COLUMNS = tuple(
    field.name
    for field in SystemTask._meta.concrete_fields
    if field.name not in ("messages", "execution", "sort_timestamp")
)
"""The columns of a task in a response that are not JSON."""


class LogLevel(models.TextChoices):
    """The log levels that a client of authentik 2024.6 knows: those of structlog."""

    CRITICAL = "critical"
    EXCEPTION = "exception"
    ERROR = "error"
    WARN = "warn"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    NOTSET = "notset"


def with_json_texts(rows: "QuerySet[Any, Any]", *columns: str) -> "QuerySet[Any, Any]":
    """Return the rows with the text of these JSON columns, as `messages_text` and so on.

    The text goes into the response as it is. Parsing it, to write it again, would cost time.
    """
    texts: dict[str, Any] = {f"{name}_text": Cast(name, models.TextField()) for name in columns}
    with_texts: QuerySet[Any, Any] = rows.defer(*columns).annotate(**texts)
    return with_texts


class RowSerializer(serializers.Serializer[Any]):
    """Sends a row's values as they are, and its JSON columns as `with_json_texts` reads them."""

    json_columns: ClassVar[tuple[str, ...]]
    attributes: ClassVar[dict[str, str]] = {}
    """The attribute of a row for each field that has another name."""

    def to_representation(self, instance: Any) -> dict[str, Any]:  # noqa: ANN401 - as in DRF
        """Return the values by field, for ORJSONRenderer."""
        values: dict[str, Any] = {}
        name: Any
        for name in self._declared_fields:  # unlike `fields`, it is not copied for each request
            if name in self.json_columns:
                text = getattr(instance, f"{name}_text")
                values[name] = None if text is None else Fragment(text)
            else:
                values[name] = getattr(instance, self.attributes.get(name, name))
        return values


class LogEventSerializer(serializers.Serializer[dict[str, Any]]):
    """One message that a run logged."""

    timestamp = serializers.DateTimeField()
    log_level = serializers.ChoiceField(choices=LogLevel.choices)
    logger = serializers.CharField()
    event = serializers.CharField()
    attributes = serializers.DictField()


class SystemTaskSerializer(RowSerializer):
    """The outcome of a task's last run."""

    json_columns = ("messages",)

    uuid = serializers.UUIDField(read_only=True)
    name = serializers.CharField()
    full_name = serializers.CharField(read_only=True, help_text="Get full name with UID")
    uid = serializers.CharField(required=False)
    description = serializers.CharField()
    start_timestamp = serializers.DateTimeField(read_only=True)
    finish_timestamp = serializers.DateTimeField(read_only=True)
    duration = serializers.FloatField(read_only=True)
    status = serializers.ChoiceField(choices=Status.choices)
    messages = LogEventSerializer(many=True)
    expires = serializers.DateTimeField(required=False, allow_null=True)
    expiring = serializers.BooleanField(required=False)


ARGUMENTS = (
    "Null where they are not recorded, secrets masked; a UUID, a date or another value of a type "
    "that JSON does not have is its text"
)


class TaskRunSerializer(RowSerializer):
    """One execution of a task, or a message that waits for its first one."""

    json_columns = ("messages", "args", "kwargs", "context")
    attributes: ClassVar = {
        "system_task": "system_task_id",
        "name": "task_name",
        "uid": "task_uid",
        "root_id": "root",
    }

    id = serializers.UUIDField(read_only=True)
    system_task = serializers.UUIDField(help_text="The task's uuid")
    name = serializers.CharField()
    uid = serializers.CharField()
    celery_id = serializers.CharField(help_text="What .delay() returned")
    attempt = serializers.IntegerField(help_text="1 for the first try, 2 for the first retry")
    number = serializers.IntegerField(
        help_text="1 for the first execution of its message, 2 if that was executed again"
    )
    redelivered = serializers.BooleanField(
        help_text="Whether the broker had delivered the message before"
    )
    replaces = serializers.UUIDField(
        allow_null=True, help_text="The run that had `self.replace` send this one"
    )
    replaced_by = serializers.UUIDField(
        allow_null=True, help_text="The run that this one had `self.replace` send"
    )
    state = serializers.ChoiceField(choices=State.choices)
    status = serializers.ChoiceField(choices=Status.choices)
    queue = serializers.CharField()
    worker = serializers.CharField()
    sender = serializers.CharField(help_text="The process that sent it")
    parent_id = serializers.CharField(help_text="Celery id of the run that sent it")
    parent_run = serializers.UUIDField(
        allow_null=True, help_text="The run that sent it; null where none has, or it is unknown"
    )
    root_id = serializers.CharField(
        help_text="Celery id of the run from which it descends; its own if it descends from none"
    )
    sent_timestamp = serializers.DateTimeField(allow_null=True)
    eta_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="The earliest time at which it was to start"
    )
    start_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="Null while it is queued"
    )
    finish_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="Null until it has ended"
    )
    wait = serializers.FloatField(
        allow_null=True, help_text="Seconds from when it was due until it started"
    )
    duration = serializers.FloatField(allow_null=True, help_text="Seconds that it took")
    args = serializers.ListField(allow_null=True, help_text=ARGUMENTS)
    kwargs = serializers.DictField(allow_null=True, help_text=ARGUMENTS)
    context: Any = serializers.DictField(help_text="What SENDER_CONTEXT returned when it was sent")
    exception = serializers.CharField(help_text="Type and message; empty where there was none")
    messages = LogEventSerializer(many=True)
    expires = serializers.DateTimeField(allow_null=True)


class TaskSummarySerializer(serializers.Serializer[dict[str, Any]]):
    """The figures of one task's finished runs in a span of time."""

    system_task = serializers.UUIDField(help_text="The task's uuid")
    name = serializers.CharField()
    uid = serializers.CharField()
    runs = serializers.IntegerField(help_text="Runs that ended")
    failures = serializers.IntegerField(help_text="Runs whose status is `error`")
    duration_p50 = serializers.FloatField(
        allow_null=True,
        help_text="Seconds that half of the runs did not exceed; wrong by 4.4 % at the most",
    )
    duration_p95 = serializers.FloatField(
        allow_null=True,
        help_text="Seconds that 95 % of the runs did not exceed; wrong by 4.4 % at the most",
    )
    duration_max = serializers.FloatField(allow_null=True, help_text="Seconds; exact")
    last_success = serializers.DateTimeField(
        allow_null=True, help_text="End of the last run in that time that was `successful`"
    )
    next_run = serializers.DateTimeField(
        allow_null=True,
        help_text="When beat will send it next; in the past if beat is late, null if it is not "
        "on beat's schedule",
    )

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """Return the row unchanged: it has the fields' names and values already."""
        return instance
