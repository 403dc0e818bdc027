"""Sends a task anew, as its last run was sent."""

from contextlib import suppress

from celery import current_app
from django.db.models import Q, QuerySet
from kombu import Connection
from kombu.exceptions import OperationalError

from systemtasks.capture.celery.schedule import load_tasks
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State

# One attempt, and an answer within seconds: by default kombu tries for 4 seconds, and waits without
# end for a Redis that accepts a connection and then says nothing.
TRANSPORT_OPTIONS = {"max_retries": 0, "socket_connect_timeout": 2, "socket_timeout": 2}

UNKNOWN = "No worker knows this task (any longer)."
UNREGISTERED = Q(
    state=State.FAILURE, args__isnull=True, exception__startswith="celery.exceptions.NotRegistered:"
)
"""The runs of which a worker said that it does not know the task."""


class RerunError(Exception):
    """A task was not sent anew; the message is a sentence for the person who asked."""


class NotRerunnableError(RerunError):
    """What to send is not on record, or nobody would run it."""


class BrokerAwayError(RerunError):
    """The broker did not take the message, or did not say that it has."""


def rerun(task: SystemTask) -> str:
    """Send the task by name, with the arguments and to the queue of its last run.

    That is the last run that began or, where none has, the last that was sent; one that no worker
    knew has no arguments, and does not count. Returns the new run's Celery id. Raises
    NotRerunnableError, or BrokerAwayError within seconds.
    """
    run = _last(task.runs.exclude(UNREGISTERED))
    if run is None:
        raise NotRerunnableError("No run of this task is on record, so its arguments are unknown.")
    if not run.arguments_intact:
        raise NotRerunnableError(
            "The arguments of this task's last run are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        )
    with current_app.connection_for_write(transport_options=TRANSPORT_OPTIONS) as connection:
        _connect(connection)
        if not _is_registered(task.name) and _is_unknown_to_workers(task.name, connection):
            raise NotRerunnableError(UNKNOWN)
        return _send(task.name, run, connection)


def _last(runs: "QuerySet[TaskRun]") -> TaskRun | None:
    runs = runs.order_by("-start_timestamp", "-id")
    return runs.filter(start_timestamp__isnull=False).first() or runs.first()


def _is_registered(name: str) -> bool:
    with suppress(ImportError):  # what only a worker can import
        load_tasks()
    return name in current_app.tasks


def _was_unknown(name: str) -> bool:
    """Whether no worker knew the task at its last run; such a run has no uid."""
    last = _last(TaskRun.objects.filter(system_task__name=name))
    return last is not None and TaskRun.objects.filter(UNREGISTERED, pk=last.pk).exists()


def _is_unknown_to_workers(name: str, connection: Connection) -> bool:
    """Whether none of the workers that answer knows it; of silent ones, what was the last word."""
    lost: tuple[type[BaseException], ...] = (
        OperationalError,
        *connection.recoverable_connection_errors,
    )
    try:
        replies = current_app.control.inspect(timeout=1, connection=connection).registered() or {}
    except lost:
        return False  # and whether it can be sent is seen at once
    answers = [reply for reply in replies.values() if isinstance(reply, list)]  # not an error's
    # A worker says `name`, or `name [rate_limit=1/s]`.
    if not answers:
        return _was_unknown(name)
    return all(text.partition(" [")[0] != name for answer in answers for text in answer)


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
