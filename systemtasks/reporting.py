"""What a task may say of itself, in the run that it is in.

None of it is required: a task that never heard of this module is recorded as well. Outside a run
all of it does nothing. None of it raises: what makes no sense is logged, and the task goes on.
"""

import logging

from systemtasks.capture.guard import never_raising
from systemtasks.conf import conf
from systemtasks.runs.arguments import uid_text
from systemtasks.runs.exceptions import formatted
from systemtasks.runs.kinds import is_of
from systemtasks.runs.recorder import current_run
from systemtasks.states import Status


@never_raising
def set_uid(uid: object) -> None:
    """Say which instance of the task this run is of: a source's slug, say. Each has a row.

    It is a text, a number, a UUID or the like. None is none in particular, as it is from
    `systemtasks_uid`.
    """
    if run := current_run():
        run.uid = uid_text(uid)


@never_raising
def set_status(status: Status | str) -> None:
    """Say how a run that ends without an exception is to be judged.

    That is `unknown`, `successful`, `warning` or `error`.
    """
    if run := current_run():
        if not is_of(status, str):
            raise TypeError("a status is a text")
        run.chosen_status = Status(str.__str__(status))


@never_raising
def info(event: str, **attributes: object) -> None:
    """Add a message to this run."""
    _say(logging.INFO, event, attributes)


@never_raising
def warning(event: str, **attributes: object) -> None:
    """Add a warning to this run, whose status becomes `warning` if it is successful otherwise."""
    _say(logging.WARNING, event, attributes)


@never_raising
def error(event: str, **attributes: object) -> None:
    """Add an error to this run, whose status becomes `warning` if it is successful otherwise."""
    _say(logging.ERROR, event, attributes)


@never_raising
def progress(done: float, total: float | None = None) -> None:
    """Say how far this run is, as often as you like: of calls in a row, the last one stays.

    A total that is no finite number counts as none; a `done` that is none says nothing.
    """
    if run := current_run():
        run.progress(done, total)


def _say(level: int, event: str, attributes: dict[str, object]) -> None:
    if run := current_run():
        run.warned = run.warned or level >= logging.WARNING
        run.log(level, run.task.name, formatted(event, conf().TEXT_LIMIT), attributes)
