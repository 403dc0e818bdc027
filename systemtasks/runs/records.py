"""A task, and an attempt to run it, as their rows will have them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import orjson

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
    def told(self) -> orjson.Fragment:
        """What a line of the journal says of it."""
        expires_after = None
        if self.expires_after is not None:
            expires_after = self.expires_after.total_seconds()
        return orjson.Fragment(
            orjson.dumps(
                {
                    "name": self.name,
                    "description": self.description,
                    "expires_after": expires_after,
                    "save_on_success": self.save_on_success,
                }
            )
        )


@dataclass(slots=True)
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
    lease: str | None = None
    """The lease of the worker that ran it, unless its end is final as it stands here."""
    provisional: bool = False
    """Whether it is an end that another process may know better: a final one replaces it."""
    from_main_process: bool = False
    """Whether it is an end of which only the worker's main process heard.

    It closes the row of the run with this lease, and keeps what the child wrote of it.
    """
    save_run: bool = True
    """Whether it becomes a TaskRun."""


@dataclass(frozen=True, slots=True, order=True)
class KnownTask:
    """A task that has a row before it has run."""

    name: str
    uid: str = ""
    description: str = ""
