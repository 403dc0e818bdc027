"""Send a run again, with its arguments and with what its message carried besides."""

from typing import Any

from celery import Celery
from django.db.models import Q
from kombu import Connection, Exchange
from kombu.exceptions import EncodeError, KombuError, OperationalError
from kombu.serialization import registry  # type: ignore[attr-defined]

from systemtasks.capture.celery.apps import app_of
from systemtasks.capture.celery.queues import is_delayed
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
    """Send the task again, as its last run was sent. Return the Celery id of the new run.

    The last run is the one that started last or, if none has started, the one that was sent last.
    Runs that a worker discarded as unknown have no arguments, and do not count. Raise
    NotRerunnableError, or BrokerAwayError within seconds.
    """
    run = _last_of(task.runs.exclude(UNREGISTERED))
    if run is None:
        raise NotRerunnableError("No run of this task is on record, so its arguments are unknown.")
    return _rerun(task.name, run, "this task's last run")


def rerun_run(run: TaskRun) -> str:
    """Send this run again, whether or not it is its task's last one. Otherwise like `rerun`."""
    return _rerun(run.system_task.name, run, "this run")


def _rerun(name: str, run: TaskRun, which: str) -> str:
    """Send a run of the task of this name again. `which` names the run in errors.

    The workers are asked if they know the task. The registry of this process is not used, because
    the process may belong to another project.
    """
    if not run.arguments_intact:
        raise NotRerunnableError(
            f"The arguments of {which} are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        )
    app = app_of(name)
    with app.connection_for_write(
        connect_timeout=CONNECT_TIMEOUT, transport_options=TRANSPORT_OPTIONS
    ) as connection:
        options = {**_options(run, which), **_destination(app, run, connection)}
        _connect(connection)
        known = _workers_know(app, name, connection)
        if known is None:
            known = not _was_unknown(name)
        if not known:
            raise NotRerunnableError(UNKNOWN)
        return _send(app, name, run, options, connection)


def _options(run: TaskRun, which: str) -> dict[str, Any]:
    """Return the options with which this run was sent, without its destination.

    Raise NotRerunnableError if one of them is unknown.
    """
    carried = run.sent_options
    if carried is None:
        raise NotRerunnableError(
            f"It is not on record what the message of {which} carried besides its arguments: "
            "its headers, priority, expiry, time limits and serializer."
        )
    if missing := carried.get("missing"):
        raise NotRerunnableError(
            f"The message of {which} is not on record as it was. Missing: {', '.join(missing)}."
        )
    names = ("headers", "priority", "expires", "time_limit", "soft_time_limit")
    options = {name: carried[name] for name in names if name in carried}
    if (content_type := carried.get("content_type")) is not None:
        options["serializer"] = _serializer(content_type)
    return options


def _serializer(content_type: str) -> str:
    try:
        return str(registry.type_to_name[content_type])
    except KeyError:
        raise NotRerunnableError(f"No serializer is known here for {content_type}.") from None


def _destination(app: Celery, run: TaskRun, connection: Connection) -> dict[str, Any]:
    """Return the options for the exchange and the routing key, or for the queue.

    A run that is not known to have had either goes where the app routes its task.
    """
    carried = run.sent_options or {}
    name, key = carried.get("exchange"), carried.get("routing_key", "")
    if not name or is_delayed(name):  # the delay is over
        return {"queue": run.queue} if run.queue else {}
    if connection.transport.driver_type == "amqp":
        # The broker knows the exchange. To declare it needs the very arguments of its declaration.
        return {"exchange": name, "routing_key": key, "declare": []}
    for queue in app.amqp.queues.values():
        exchange: Exchange = queue.exchange
        if exchange is not None and exchange.name == name:
            return {"exchange": exchange, "routing_key": key, "declare": [exchange]}
    # A broker such as Redis has no exchanges: their types are known to the apps that use them.
    if not run.queue:
        raise NotRerunnableError(
            f"The exchange {name} and the queue of the run are not known here."
        )
    return {"queue": run.queue}


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


def _workers_know(app: Celery, name: str, connection: Connection) -> bool | None:
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
    control: Any = app.control
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


def _send(
    app: Celery, name: str, run: TaskRun, options: dict[str, Any], connection: Connection
) -> str:
    exchange = options.get("exchange")
    if isinstance(exchange, str):
        _check_exchange(exchange, connection)
    try:
        result = app.send_task(
            name,
            args=run.args or [],
            kwargs=run.kwargs or {},
            connection=connection,
            retry=False,
            **options,
        )
    except OperationalError as error:
        raise BrokerAwayError(
            "It is not known whether the task was enqueued: the broker does not answer. "
            "Look at the task's runs before you try again."
        ) from error
    except EncodeError as error:
        raise NotRerunnableError(f"The message cannot be encoded as it was: {error}") from error
    return str(result.id)


def _check_exchange(name: str, connection: Connection) -> None:
    """Raise NotRerunnableError if RabbitMQ has no exchange of this name.

    It would drop the message, and report that too late.
    """
    with connection.channel() as channel:
        try:
            Exchange(name, channel=channel, passive=True).declare()
        except connection.channel_errors as error:
            raise NotRerunnableError(f"The broker has no exchange {name} (any longer).") from error
