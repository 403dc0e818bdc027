"""What a SystemTask looks like on the wire, in the contract's order."""

from typing import Any

from django.db import models
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


class LogEventSerializer(serializers.Serializer[dict[str, Any]]):
    """One line that a run logged."""

    timestamp = serializers.DateTimeField()
    log_level = serializers.ChoiceField(choices=LogLevel.choices)
    logger = serializers.CharField()
    event = serializers.CharField()
    attributes = serializers.DictField()

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """The event as it is stored, which is how it is sent."""
        return instance


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
