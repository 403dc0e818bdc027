"""What is handed from the recorder to the journal and the writer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Self
from uuid import UUID

from systemtasks.states import State, Status

NAME_LIMIT = 255  # characters; the columns' own


@dataclass(frozen=True)
class TaskInfo:
    """What is the same in every run of a task."""

    name: str
    description: str = ""
    expires_after: timedelta | None = None
    recorded: bool = True
    save_on_success: bool = True
    """Whether a successful run is a TaskRun; if not, only its SystemTask tells of it."""
    uid: Callable[..., object] | None = None
    """Called with a run's arguments, it tells the uid."""
    masked: frozenset[str] = frozenset()
    """The names of the parameters whose values are masked."""
    masked_positions: tuple[int, ...] = ()
    """Which positional arguments are masked."""

    @cached_property
    def blank(self) -> "RunRecord":
        """A run of this task of which nothing else is known."""
        return RunRecord(self.name, self.description)


@dataclass  # without slots, since orjson is faster then
class RunRecord:
    """An attempt as its row will have it: queued, running or finished; JSON is text by now."""

    name: str
    description: str = ""
    uid: str = ""
    first_uid: str = ""
    """The uid under which it was sent or started, where the task has changed it since."""
    celery_id: str = ""
    attempt: int = 1
    state: State = State.QUEUED
    status: Status = Status.UNKNOWN
    queue: str = ""
    worker: str = ""
    sender: str = ""
    parent_id: str = ""
    root_id: str = ""
    context: str = "{}"
    sent_timestamp: datetime | None = None
    eta_timestamp: datetime | None = None
    start_timestamp: datetime | None = None
    finish_timestamp: datetime | None = None
    wait: float | None = None
    duration: float | None = None
    args: str | None = None
    kwargs: str | None = None
    arguments_intact: bool = False
    exception: str = ""
    messages: str = "[]"
    expires: datetime | None = None
    lease: UUID | None = None
    """The process that answers for the run, while it is running or its end is not sure."""
    lost: UUID | None = None
    """For an end that only the worker's main process knows: the lease of the run that ended."""
    save_run: bool = True
    """Whether it becomes a TaskRun."""

    def but(self, **values: Any) -> Self:  # noqa: ANN401 - each field has its own type
        """A copy with these values, like `dataclasses.replace` at a fraction of its time."""
        made = object.__new__(type(self))
        made.__dict__ = {**self.__dict__, **values}
        return made

    @property
    def key(self) -> tuple[str, int]:
        """What identifies an attempt."""
        return self.celery_id, self.attempt


@dataclass(frozen=True, slots=True, order=True)
class KnownTask:
    """A task that has a row before it has run."""

    name: str
    uid: str = ""
    description: str = ""
