"""A task and an attempt, with the values of their rows."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from systemtasks.states import State, Status

NAME_LIMIT = 255  # characters; the columns' own


@dataclass(frozen=True)
class TaskInfo:
    """The properties of a task that are the same in all its runs."""

    name: str
    description: str = ""
    expires_after: timedelta | None = None
    recorded: bool = True
    save_on_success: bool = True
    """False if a successful run changes only its SystemTask and makes no TaskRun."""
    uid: Callable[..., object] | None = None
    """A function of a run's arguments that returns the uid."""
    masked: frozenset[str] = frozenset()
    """The names of the parameters whose values are masked."""
    masked_positions: tuple[int, ...] = ()
    """The indexes of the positional arguments that are masked."""

    def __hash__(self) -> int:
        """Return a hash at once: there are few with the same name, and a task waits for it."""
        return hash(self.name)


@dataclass(slots=True)
class RunRecord:
    """An attempt with the values of its row: queued, running or finished. JSON is encoded."""

    name: str
    description: str = ""
    uid: str = ""
    first_uid: str = ""
    """The uid with which it was sent or started. The task may change it while it runs."""
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
    lease: str | None = None
    """The lease of the worker that ran it, or None if this is the run's final end."""
    provisional: bool = False
    """True for an end that is replaced if another process records a final one."""
    from_main_process: bool = False
    """True for an end that only the worker's main process could record.

    It ends the row of the run with this lease, and keeps what the child process wrote there.
    """
    is_beginning: bool = False
    """True if only the beginning of the run is known, as its process was killed.

    It replaces no row of the same run in progress, which says more.
    """
    is_gone: bool = False
    """True for a beginning whose run nobody else ends."""
    save_run: bool = True
    """True if it becomes a TaskRun."""


@dataclass(frozen=True, slots=True, order=True)
class KnownTask:
    """A task that has a row before it has run."""

    name: str
    uid: str = ""
    description: str = ""
