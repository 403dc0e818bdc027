"""Route a project's tasks. This service does not know the project's own routes."""

from typing import Any

from systemtasks.rerun import NotRerunnableError


def route_as_recorded(
    name: str,
    args: object,
    kwargs: object,
    options: dict[str, Any],
    task: object = None,
) -> dict[str, Any]:
    """Return options that make Celery send to the queue or exchange in `options`, undeclared.

    A queue must be declared with the same arguments that its consumers use, and they are not known.
    Raise NotRerunnableError if `options` name neither.
    """
    if not options.get("queue") and not options.get("exchange"):
        raise NotRerunnableError("The queue of this task's last run is not on record.")
    return {"declare": []}
