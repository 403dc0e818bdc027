"""Where this service sends the tasks of a project, whose routes only the project knows."""

from typing import Any

from systemtasks.rerun import NotRerunnableError


def route_as_recorded(
    name: str,
    args: object,
    kwargs: object,
    options: dict[str, Any],
    task: object = None,
) -> dict[str, Any]:
    """Return options by which Celery sends to the queue that it was given, and declares none.

    A queue that is declared must be declared as its consumers do. Raises NotRerunnableError where
    Celery was given no queue.
    """
    if not options.get("queue"):
        raise NotRerunnableError("The queue of this task's last run is not on record.")
    return {"declare": []}
