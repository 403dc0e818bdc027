"""The words for where a run stands and how it ended."""

from dataclasses import dataclass
from typing import Any

from django.db.models import TextChoices


class Status(TextChoices):
    """How a run ended, in the words of authentik's `TaskStatus`."""

    UNKNOWN = "unknown"
    SUCCESSFUL = "successful"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of the table of outcomes, which is `State`."""

    value: str
    """What the database and the API call it."""
    celery_name: str | None
    """What Celery calls it when a run ends; None if no run ends in it by Celery's own word."""
    status: Status
    """The status of such a run, unless the run itself gives a reason for another."""
    finished: bool = True
    """Whether such a run has ended."""
    dropped_first: bool = False
    """Whether such runs are dropped before others when too many wait for the database."""


class State(TextChoices):
    """Where a run stands, after Celery's own states. This is the one table of outcomes.

    Choices, constraints, filters and SQL take what they need from it. To add an outcome, add its
    line here, run `makemigrations`, and test how a run comes to end so.
    """

    QUEUED = Outcome("queued", None, Status.UNKNOWN, finished=False, dropped_first=True)
    RUNNING = Outcome("running", None, Status.UNKNOWN, finished=False)
    SUCCESS = Outcome("success", "SUCCESS", Status.SUCCESSFUL, dropped_first=True)
    FAILURE = Outcome("failure", "FAILURE", Status.ERROR)
    RETRY = Outcome("retry", "RETRY", Status.WARNING)
    REVOKED = Outcome("revoked", "REVOKED", Status.WARNING)
    REJECTED = Outcome("rejected", "REJECTED", Status.WARNING)
    IGNORED = Outcome("ignored", "IGNORED", Status.UNKNOWN)

    _value_: str
    outcome: Outcome

    def __new__(cls, outcome: Any) -> "State":  # noqa: ANN401 - mypy takes State("queued") for it
        """Make the member of an Outcome: a string, as every choice is, that has its line."""
        member = str.__new__(cls, outcome.value)
        member._value_ = outcome.value
        member.outcome = outcome
        return member


UNFINISHED = tuple(state for state in State if not state.outcome.finished)
"""The states of a run that has not ended."""

ORPHANED = State.FAILURE
"""The state in which a run ends whose worker gave no sign of life."""

STATE_BY_CELERY_NAME = {
    state.outcome.celery_name: state for state in State if state.outcome.celery_name
}
"""The states in which a run ends, by Celery's names for them."""
