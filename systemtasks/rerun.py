"""Sends a task anew, as its last run was sent."""

from typing import Any

from celery import current_app
from django.db.models import Q
from kombu import Connection
from kombu.exceptions import KombuError, OperationalError

from systemtasks.models import SystemTask, TaskRun, TaskRunQuerySet
from systemtasks.states import State

# One attempt, and an answer within seconds: by default kombu tries for 4 seconds, and waits without
# end for a broker that accepts a connection and then says nothing. The last two are RabbitMQ's.
TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": 2,
    "socket_timeout": 2,
    "read_timeout": 2,
    "write_timeout": 2,
}
CONNECT_TIMEOUT = 2.0  # seconds
ANSWER_TIMEOUT = 1.0  # seconds that a worker has for its answer

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

    Which tasks there are is asked of the workers, and never of this process, which may belong to
    another project.
    """
    run = _last_of(task.runs.exclude(UNREGISTERED))
    if run is None:
        raise NotRerunnableError("No run of this task is on record, so its arguments are unknown.")
    if not run.arguments_intact:
        raise NotRerunnableError(
            "The arguments of this task's last run are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        )
    with current_app.connection_for_write(
        connect_timeout=CONNECT_TIMEOUT, transport_options=TRANSPORT_OPTIONS
    ) as connection:
        _connect(connection)
        known = _is_known_to_workers(task.name, connection)
        if known is None:
            known = not _was_unknown(task.name)
        if not known:
            raise NotRerunnableError(UNKNOWN)
        return _send(task.name, run, connection)


def _last_of(runs: TaskRunQuerySet) -> TaskRun | None:
    """Return the run that started last or, where none has, the one that was sent last."""
    runs = runs.newest_first()
    return runs.started().first() or runs.first()


def _was_unknown(name: str) -> bool:
    """Return True if no worker knew the task at its last run; such a run has no uid."""
    last = _last_of(TaskRun.objects.filter(system_task__name=name))
    return last is not None and TaskRun.objects.filter(UNREGISTERED, pk=last.pk).exists()


class _Known(BaseException):
    """A worker has answered that it knows the task."""


def _is_known_to_workers(name: str, connection: Connection) -> bool | None:
    """Return True as soon as a worker says that it knows the task, and False if none of them does.

    Returns None where no worker gives an answer that can be read.
    """
    answered = False

    def look(replies: Any) -> None:  # noqa: ANN401 - whatever a worker sends
        nonlocal answered
        for answer in replies.values() if isinstance(replies, dict) else ():
            if isinstance(answer, list):  # and not an error
                answered = True
                # A worker says `name`, or `name [rate_limit=1/s]`.
                if any(str(text).partition(" [")[0] == name for text in answer):
                    raise _Known

    lost: tuple[type[BaseException], ...] = (
        KombuError,
        *connection.recoverable_connection_errors,
    )
    control: Any = current_app.control
    mailbox = control.mailbox(connection)
    mailbox.producer_pool = None  # whose connections may be dead, and have no time-outs
    try:
        mailbox.multi_call("registered", {"builtins": True}, timeout=ANSWER_TIMEOUT, callback=look)
    except _Known:
        return True
    except lost:
        return None  # and whether it can be sent is seen at once
    return False if answered else None


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
