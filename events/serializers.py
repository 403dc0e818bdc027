"""What a SystemTask looks like on the wire, in the contract's order."""

from typing import Any

from django.db import models
from django.db.models import QuerySet
from django.db.models.functions import Cast
from orjson import Fragment
from rest_framework import serializers

from systemtasks.states import State, Status


class LogLevel(models.TextChoices):
    """The levels that a client of authentik 2024.6 knows, after structlog's."""

    CRITICAL = "critical"
    EXCEPTION = "exception"
    ERROR = "error"
    WARN = "warn"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    NOTSET = "notset"


def with_json_texts(rows: "QuerySet[Any, Any]", *columns: str) -> "QuerySet[Any, Any]":
    """The rows, these columns of theirs as the text that Postgres has: `messages_text` and so on.

    It passes on to the answer so, unread.
    """
    texts: dict[str, Any] = {f"{name}_text": Cast(name, models.TextField()) for name in columns}
    unread: QuerySet[Any, Any] = rows.defer(*columns).annotate(**texts)
    return unread


class LogEventSerializer(serializers.Serializer[dict[str, Any]]):
    """One line that a run logged."""

    timestamp = serializers.DateTimeField()
    log_level = serializers.ChoiceField(choices=LogLevel.choices)
    logger = serializers.CharField()
    event = serializers.CharField()
    attributes = serializers.DictField()


class SystemTaskSerializer(serializers.Serializer[Any]):
    """The outcome of a task's last run."""

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

    def to_representation(self, instance: Any) -> dict[str, Any]:  # noqa: ANN401 - as in DRF
        """The row's values as they are, which is how they are sent; see `with_json_texts`."""
        return {
            "uuid": instance.uuid,
            "name": instance.name,
            "full_name": instance.full_name,
            "uid": instance.uid,
            "description": instance.description,
            "start_timestamp": instance.start_timestamp,
            "finish_timestamp": instance.finish_timestamp,
            "duration": instance.duration,
            "status": instance.status,
            "messages": Fragment(instance.messages_text),
            "expires": instance.expires,
            "expiring": instance.expiring,
        }


JSON_COLUMNS = ("messages", "args", "kwargs", "context")


class TaskRunSerializer(serializers.Serializer[Any]):
    """One attempt of one run of a task."""

    id = serializers.IntegerField(read_only=True)
    system_task = serializers.UUIDField(help_text="The task's uuid")
    name = serializers.CharField()
    uid = serializers.CharField()
    celery_id = serializers.CharField(help_text="What .delay() returned")
    attempt = serializers.IntegerField(help_text="1 for the first try, 2 for the first retry")
    state = serializers.ChoiceField(choices=State.choices)
    status = serializers.ChoiceField(choices=Status.choices)
    queue = serializers.CharField()
    worker = serializers.CharField()
    sender = serializers.CharField(help_text="The process that sent it")
    parent_id = serializers.CharField(help_text="Celery id of the run that sent it")
    root_id = serializers.CharField(help_text="Celery id of the run from which it descends")
    sent_timestamp = serializers.DateTimeField(allow_null=True)
    eta_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="When it was to start at the earliest"
    )
    start_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="Null while it is queued"
    )
    finish_timestamp = serializers.DateTimeField(
        allow_null=True, help_text="Null until it has ended"
    )
    wait = serializers.FloatField(
        allow_null=True, help_text="Seconds between when it was due and its start"
    )
    duration = serializers.FloatField(allow_null=True, help_text="Seconds that it took")
    args = serializers.ListField(
        allow_null=True, help_text="Null where they are not recorded, secrets masked"
    )
    kwargs = serializers.DictField(
        allow_null=True, help_text="Null where they are not recorded, secrets masked"
    )
    context: Any = serializers.DictField(help_text="What SENDER_CONTEXT said when it was sent")
    exception = serializers.CharField(help_text="Type and message; empty where there was none")
    messages = LogEventSerializer(many=True)
    expires = serializers.DateTimeField(allow_null=True)

    def to_representation(self, instance: Any) -> dict[str, Any]:  # noqa: ANN401 - as in DRF
        """The row's values as they are; see `TaskRunViewSet.queryset` for the texts of its JSON."""
        sent: dict[str, Any] = {}
        name: Any
        for name in self._declared_fields:  # the class's own, which DRF copies for `fields`
            if name in JSON_COLUMNS:
                text = getattr(instance, f"{name}_text")
                sent[name] = None if text is None else Fragment(text)
            else:
                sent[name] = getattr(instance, RUN_ATTRIBUTES.get(name, name))
        return sent


RUN_ATTRIBUTES = {"system_task": "system_task_id", "name": "task_name", "uid": "task_uid"}


class TaskSummarySerializer(serializers.Serializer[dict[str, Any]]):
    """What a task's finished runs in a span of time came to."""

    system_task = serializers.UUIDField(help_text="The task's uuid")
    name = serializers.CharField()
    uid = serializers.CharField()
    runs = serializers.IntegerField(help_text="Attempts that ended")
    failures = serializers.IntegerField(help_text="Those whose status is `error`")
    duration_p50 = serializers.FloatField(allow_null=True, help_text="Seconds; the median")
    duration_p95 = serializers.FloatField(allow_null=True, help_text="Seconds")
    duration_max = serializers.FloatField(allow_null=True, help_text="Seconds")
    last_success = serializers.DateTimeField(
        allow_null=True, help_text="End of the last run in that time that was `successful`"
    )
    next_run = serializers.DateTimeField(
        allow_null=True,
        help_text="When beat will send it next, or should have, where that is past; null where "
        "beat does not know it",
    )

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """The row as it is."""
        return instance
