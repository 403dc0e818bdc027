"""The states of a run and the statuses of its end."""

from dataclasses import dataclass
from enum import property as enum_property
from typing import Any

from django.db.models import TextChoices
from django.utils.translation import pgettext_lazy


class Words(TextChoices):
    """Choices whose labels, which are made of their names, are translated when they are shown."""

    @enum_property
    def label(self) -> Any:  # noqa: ANN401 - a lazy text
        return pgettext_lazy("systemtasks", str(self._label_))


class Status(Words):
    """The status of a run, as in authentik's `TaskStatus`."""

    UNKNOWN = "unknown"
    SUCCESSFUL = "successful"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of the table of outcomes in `State`."""

    value: str
    """The name in the database and the API."""
    celery_name: str | None
    """Celery's name of the final state, or None if Celery has no such final state."""
    status: Status
    """The default status of a run in this state. The run itself may set another status."""
    finished: bool = True
    """True if a run in this state has ended."""
    dropped_first: bool = False
    """True if these runs are dropped first when too many runs wait for the database."""


class State(Words):
    """The state of a run, named after Celery's states. This is the only table of outcomes.

    Choices, constraints, filters and SQL are derived from it. To add an outcome, add a line here,
    run `makemigrations`, and test that a run ends in it.
    """

    QUEUED = Outcome("queued", None, Status.UNKNOWN, finished=False, dropped_first=True)
    RUNNING = Outcome("running", None, Status.UNKNOWN, finished=False)
    SUCCESS = Outcome("success", "SUCCESS", Status.SUCCESSFUL, dropped_first=True)
    FAILURE = Outcome("failure", "FAILURE", Status.ERROR)
    RETRY = Outcome("retry", "RETRY", Status.WARNING)
    REVOKED = Outcome("revoked", "REVOKED", Status.WARNING)
    REJECTED = Outcome("rejected", "REJECTED", Status.WARNING)
    LOST = Outcome("lost", None, Status.WARNING)
    """It was sent and never started. Only the statement END_LOST_RUNS ends runs like this."""
    IGNORED = Outcome("ignored", "IGNORED", Status.UNKNOWN)

    _value_: str
    outcome: Outcome

    def __new__(cls, outcome: Any) -> "State":  # noqa: ANN401 - mypy takes State("queued") for it
        """Create the member of an Outcome: a string, like any choice, with an `outcome`."""
        member = str.__new__(cls, outcome.value)
        member._value_ = outcome.value
        member.outcome = outcome
        return member


UNFINISHED = tuple(state for state in State if not state.outcome.finished)
"""The states of a run that has not ended."""

ORPHANED = State.FAILURE
"""The state of an orphaned run, whose worker gave no sign of life."""

STATE_BY_CELERY_NAME = {
    state.outcome.celery_name: state for state in State if state.outcome.celery_name
}
"""The final states by Celery's names."""
