"""A task and a run, with the values of their rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from systemtasks.ids import new_id
from systemtasks.runs.secret_names import spelled
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
    polls: bool = False
    """True if it is retried until something has happened. Only its last attempt is recorded."""
    uid: Callable[..., object] | None = None
    """A function of a run's arguments that returns the uid."""
    masked: frozenset[str] = frozenset()
    """The names of the parameters whose values are masked."""
    masked_positions: tuple[int, ...] = ()
    """The indexes of the positional arguments that are masked."""
    masked_from: int | None = None
    """The index of the first argument of a masked `*tokens`, or None. All later ones are masked."""
    parameters: tuple[str, ...] = ()
    """The names of the parameters that take positional arguments. `*args` is not among them."""
    has_more: bool = False
    """True if it takes more positional arguments than these, by `*args`."""
    unmasked_keywords: frozenset[str] | None = None
    """All its parameters if all others, those of `**secrets`, are masked. Otherwise None."""
    known: bool = True
    """False if this process does not know the task, nor which arguments are secrets."""
    keeps_plain: bool = field(init=False, repr=False, compare=False)
    """True if its arguments are kept as they are, unless one has a secret's name."""

    def __post_init__(self) -> None:
        masks = self.masked or not self.masks_no_position or self.masks_other_keywords
        # An attribute, because a task waits while it is read.
        object.__setattr__(self, "keeps_plain", not masks and not self.is_of_celery)

    @cached_property
    def masked_names(self) -> frozenset[str]:
        """Return the names that the task's option masks, in one spelling."""
        return frozenset(map(spelled, self.masked))

    @cached_property
    def is_of_celery(self) -> bool:
        """Return True for Celery's own tasks, which get the arguments of other tasks."""
        return self.name.startswith("celery.")

    @cached_property
    def masks_no_position(self) -> bool:
        """Return True if none of its positional arguments is masked."""
        return self.known and not self.masked_positions and self.masked_from is None

    @cached_property
    def masks_other_keywords(self) -> bool:
        """Return True if `masks_keyword` may return True."""
        return not self.known or self.unmasked_keywords is not None

    def masks(self, index: int, value: object) -> bool:
        """Return True if this positional argument is masked."""
        if not self.known:
            return True
        is_masked = index in self.masked_positions or (
            self.masked_from is not None and index >= self.masked_from
        )
        if not is_masked or (value is not None and type(value) is not bool):
            return is_masked
        name = self.parameters[index] if index < len(self.parameters) else ""
        return not name or name in self.masked

    def masks_keyword(self, name: str) -> bool:
        """Return True if this keyword argument is masked because of the task, not of its name."""
        if not self.known:
            return True
        return self.unmasked_keywords is not None and name not in self.unmasked_keywords

    def room_after(self, number: int) -> int:
        """Return how many more positional arguments it takes after `number` of them."""
        return max(len(self.parameters) - number, 0) + self.has_more

    def __hash__(self) -> int:
        """Return a fast hash, since a task waits for it. Few have the same name."""
        return hash(self.name)


@dataclass(slots=True)
class RunRecord:
    """A run with the values of its row: queued, running or finished. JSON is encoded.

    Its ids are the texts of UUIDs, as Postgres writes them. To make and compare objects would take
    as long as all else that a decoder does.
    """

    name: str
    id: str = field(default_factory=new_id)
    """The id that the sender stamped into the message, or else `execution`.

    It is the id of the row, unless another execution of the same message has that already.
    """
    execution: str | None = None
    """The id of one execution of a message, or None if it has only been sent.

    Unlike `id`, no two executions share it.
    """
    description: str = ""
    uid: str = ""
    first_uid: str = ""
    """The uid when it was sent or started. The task may change it while it runs."""
    celery_id: str = ""
    attempt: int = 1
    redelivered: bool = False
    """True if the broker says that it has delivered the message before."""
    replaces: str | None = None
    """The id of the run that had `self.replace` send this one."""
    replaced_by: str | None = None
    """The id of the run that this one had `self.replace` send."""
    parent_run: str | None = None
    """The id of the run that sent this one."""
    state: State = State.QUEUED
    status: Status = Status.UNKNOWN
    queue: str = ""
    worker: str = ""
    sender: str = ""
    parent_id: str = ""
    root_id: str = ""
    context: str = "{}"
    sent_options: str | None = "{}"
    """The options that its message carried (see `sent_options`), or None if they are unknown."""
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
    """True for the beginning of a run that no other record ends."""
    save_run: bool = True
    """True if it becomes a TaskRun."""
    age: float | None = None
    """Seconds since its start, by the clock of the host that writes it, when it is written."""


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """An entry of beat's schedule with the values of its row. JSON is encoded."""

    app: str
    entry: str
    task: str
    uid: str
    words: str
    """When the entry is due, in words."""
    next_due: datetime | None
    last_sent: datetime | None
    enabled: bool
    args: str | None
    kwargs: str | None
    arguments_intact: bool
    sent_options: str | None
    """What its messages carry (see `sent_options`), or None if it is unknown."""


@dataclass(frozen=True, slots=True, order=True)
class KnownTask:
    """A task that has a row before it has run."""

    name: str
    uid: str = ""
    description: str = ""
