"""Route the tasks of a project, whose own routes this service does not know."""

from typing import Any

from systemtasks.rerun import NotRerunnableError


def route_as_recorded(
    name: str,
    args: object,
    kwargs: object,
    options: dict[str, Any],
    task: object = None,
) -> dict[str, Any]:
    """Return options that make Celery send to the queue in `options`, without declaring it.

    To declare a queue needs the very arguments with which its consumers declare it. Raises
    NotRerunnableError if `options` name no queue.
    """
    if not options.get("queue"):
        raise NotRerunnableError("The queue of this task's last run is not on record.")
    return {"declare": []}
