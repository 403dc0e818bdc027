"""Sends a task anew, as its last run was sent."""

from celery import current_app
from kombu import Connection
from kombu.exceptions import OperationalError

from systemtasks.models import SystemTask, TaskRun

# One attempt, and an answer within seconds: by default kombu tries for 4 seconds, and waits without
# end for a Redis that accepts a connection and then says nothing.
TRANSPORT_OPTIONS = {"max_retries": 0, "socket_connect_timeout": 2, "socket_timeout": 2}


class RerunError(Exception):
    """A task was not sent anew; the message is a sentence for the person who asked."""


class NotRerunnableError(RerunError):
    """What to send is not on record."""


class BrokerAwayError(RerunError):
    """The broker did not take the message, or did not say that it has."""


def rerun(task: SystemTask) -> str:
    """Send the task by name, with the arguments and to the queue of its last run.

    That is the last run that began or, where none has, the last that was sent. Returns the new
    run's Celery id. Raises NotRerunnableError, or BrokerAwayError within seconds.
    """
    runs = task.runs.order_by("-start_timestamp", "-id")
    run = runs.filter(start_timestamp__isnull=False).first() or runs.first()
    if run is None:
        raise NotRerunnableError("No run of this task is on record, so its arguments are unknown.")
    if not run.arguments_intact:
        raise NotRerunnableError(
            "The arguments of this task's last run are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        )
    with current_app.connection_for_write(transport_options=TRANSPORT_OPTIONS) as connection:
        _connect(connection)
        return _send(task.name, run, connection)


def _connect(connection: Connection) -> None:
    # Before anything is sent, so that it is known that nothing was.
    try:
        connection.default_channel  # noqa: B018 - which connects
    except OperationalError as error:
        raise BrokerAwayError("The task was not enqueued: the broker does not answer.") from error


def _send(name: str, run: TaskRun, connection: Connection) -> str:
    try:
        result = current_app.send_task(
            name,
            args=run.args or [],
            kwargs=run.kwargs or {},
            queue=run.queue or None,
            connection=connection,
            retry=False,
        )
    except OperationalError as error:
        raise BrokerAwayError(
            "It is not known whether the task was enqueued: the broker does not answer. "
            "Look at the task's runs before you try again."
        ) from error
    return str(result.id)
