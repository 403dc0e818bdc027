"""Let a task report on its current run.

These functions are optional: a task that calls none of them is recorded, too. Outside a run they do
nothing.
They never raise: an invalid argument is logged, and the task goes on.
"""

import logging

from systemtasks.capture.guard import never_raising
from systemtasks.capture.loguru_sink import loguru_sink as loguru_sink
from systemtasks.conf import conf
from systemtasks.runs.arguments import uid_text
from systemtasks.runs.exceptions import formatted
from systemtasks.runs.kinds import is_of
from systemtasks.runs.recorder import current_run
from systemtasks.states import Status


@never_raising
def set_uid(uid: object) -> None:
    """Set the uid of this run: a source's slug, for example. Each uid of a task has its own row.

    It is a text, a number, a UUID or the like. None means no uid, as in `systemtasks_uid`.
    """
    if run := current_run():
        run.set_uid(uid_text(uid))


@never_raising
def set_status(status: Status | str) -> None:
    """Set the status of this run if it ends without an exception.

    It is `unknown`, `successful`, `warning` or `error`.
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
    """Add a warning to this run. If the run succeeds, its status becomes `warning`."""
    _say(logging.WARNING, event, attributes)


@never_raising
def error(event: str, **attributes: object) -> None:
    """Add an error to this run. If the run succeeds, its status becomes `warning`."""
    _say(logging.ERROR, event, attributes)


@never_raising
def progress(done: float, total: float | None = None) -> None:
    """Report how far this run is. Of successive calls, only the last message is kept.

    `done` and `total` are numbers in any unit. If `total` is not finite, it is left out; if `done`
    is not finite, the call does nothing.
    """
    if run := current_run():
        run.progress(done, total)


def _say(level: int, event: str, attributes: dict[str, object]) -> None:
    if run := current_run():
        run.warned = run.warned or level >= logging.WARNING
        run.log(level, run.task.name, formatted(event, conf().TEXT_LIMIT), attributes)
