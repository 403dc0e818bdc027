"""What a SystemTask looks like on the wire, in the contract's order."""

from typing import Any

from django.db import models
from django.db.models import QuerySet
from django.db.models.functions import Cast
from orjson import Fragment
from rest_framework import serializers

from systemtasks.states import Status


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


def with_messages_text(rows: "QuerySet[Any, Any]") -> "QuerySet[Any, Any]":
    """The rows, their messages as the JSON text that Postgres has: `messages_text`.

    They pass on to the answer so, unread.
    """
    text = Cast("messages", models.TextField())
    unread: QuerySet[Any, Any] = rows.defer("messages").annotate(messages_text=text)
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
        """The row's values as they are, which is how they are sent; see `with_messages_text`."""
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
