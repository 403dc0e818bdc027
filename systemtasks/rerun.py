"""Send a task again, as its last run was sent."""

from typing import Any

from celery import current_app
from django.db.models import Q
from kombu import Connection
from kombu.exceptions import KombuError, OperationalError

from systemtasks.models import SystemTask, TaskRun, TaskRunQuerySet
from systemtasks.states import State

# One attempt, and an answer within seconds. By default kombu tries for 4 seconds, and waits for
# ever if a broker accepts a connection and then does not answer. The last two are RabbitMQ's.
TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": 2,
    "socket_timeout": 2,
    "read_timeout": 2,
    "write_timeout": 2,
}
CONNECT_TIMEOUT = 2.0  # seconds
ANSWER_TIMEOUT = 1.0  # seconds in which a worker must answer

UNKNOWN = "No worker knows this task (any longer)."
UNREGISTERED = Q(
    state=State.FAILURE, args__isnull=True, exception__startswith="celery.exceptions.NotRegistered:"
)
"""The runs that a worker discarded because it does not know the task."""


class RerunError(Exception):
    """The task was not sent again. The message is a sentence for the person who asked."""


class NotRerunnableError(RerunError):
    """The task cannot be sent: its arguments are not on record, or no worker would run it."""


class BrokerAwayError(RerunError):
    """The broker did not take the message, or did not confirm it."""


def rerun(task: SystemTask) -> str:
    """Send the task by name, with the arguments and to the queue of its last run.

    The last run is the one that started last or, if none has started, the one that was sent last.
    Runs that a worker discarded as unknown have no arguments, and do not count. Return the Celery
    id of the new run. Raise NotRerunnableError, or BrokerAwayError within seconds.

    The workers are asked if they know the task. The registry of this process is not used, because
    the process may belong to another project.
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
        known = _workers_know(task.name, connection)
        if known is None:
            known = not _was_unknown(task.name)
        if not known:
            raise NotRerunnableError(UNKNOWN)
        return _send(task.name, run, connection)


def _last_of(runs: TaskRunQuerySet) -> TaskRun | None:
    """Return the run that started last or, if none has started, the one that was sent last."""
    runs = runs.newest_first()
    return runs.started().first() or runs.first()


def _was_unknown(name: str) -> bool:
    """Return True if the last run was discarded as unknown; such a run has no uid."""
    last = _last_of(TaskRun.objects.filter(system_task__name=name))
    return last is not None and TaskRun.objects.filter(UNREGISTERED, pk=last.pk).exists()


class _TaskKnown(BaseException):
    """Raised to stop waiting: a worker has answered that it knows the task."""


def _workers_know(name: str, connection: Connection) -> bool | None:
    """Return True if a worker knows the task, and False if those that answer do not.

    Return None if no worker answers in time, or none sends a valid answer.
    """
    answered = False

    def read(replies: Any) -> None:  # noqa: ANN401 - a worker may send anything
        nonlocal answered
        for answer in replies.values() if isinstance(replies, dict) else ():
            if isinstance(answer, list):  # and not an error
                answered = True
                # A worker sends `name`, or `name [rate_limit=1/s]`.
                if any(str(text).partition(" [")[0] == name for text in answer):
                    raise _TaskKnown

    lost: tuple[type[BaseException], ...] = (
        KombuError,
        *connection.recoverable_connection_errors,
    )
    control: Any = current_app.control
    mailbox = control.mailbox(connection)
    mailbox.producer_pool = None  # its connections have no time-outs, and may be dead
    try:
        mailbox.multi_call("registered", {"builtins": True}, timeout=ANSWER_TIMEOUT, callback=read)
    except _TaskKnown:
        return True
    except lost:
        return None  # sending, which comes next, reports the error
    return False if answered else None


def _connect(connection: Connection) -> None:
    # This comes before anything is sent, so it is certain that nothing was.
    try:
        connection.default_channel  # noqa: B018 - reading it connects
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
