"""The words for where a run stands and how it ended."""

from django.db.models import TextChoices


class Status(TextChoices):
    """How a run ended, in the words of authentik's `TaskStatus`."""

    UNKNOWN = "unknown"
    SUCCESSFUL = "successful"
    WARNING = "warning"
    ERROR = "error"


class State(TextChoices):
    """Where a run stands, after Celery's own states."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"
    REVOKED = "revoked"
    REJECTED = "rejected"
    IGNORED = "ignored"


UNFINISHED = (State.QUEUED, State.RUNNING)
