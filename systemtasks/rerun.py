"""Send a run again, with its arguments and with what its message carried besides."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from json import loads
from typing import Any, Self
from uuid import UUID

from celery import Celery
from django.db.models import Q
from kombu import Connection, Exchange
from kombu.exceptions import EncodeError, KombuError, OperationalError
from kombu.serialization import registry  # type: ignore[attr-defined]
from kombu.utils import json

from systemtasks.capture.celery.apps import app_of
from systemtasks.capture.celery.queues import is_delayed
from systemtasks.capture.celery.received import added_context
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun, TaskRunQuerySet
from systemtasks.runs.typed_values import ARGS, KWARGS, has_envelope, join
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
NAMED_ENTRIES = 5
"""The entries of the schedule that an error names at most."""

BY, OF = "run_again_by", "run_again_of"
"""The keys, in the sender's context of the new run, of who ran it again, and of which run it is."""

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


class NotTriedError(BrokerAwayError):
    """The broker did not answer for another task before, so that this one was not sent."""


def rerun(task: SystemTask, by: str = "") -> str:
    """Send the task again, as its last run was sent. Return the Celery id of the new run.

    `by` is the name of who asked, for the record of the new run.

    The last run is the one that started last or, if none has started, the one that was sent last.
    Runs that a worker discarded as unknown have no arguments, and do not count. Without a run, the
    task is sent as beat would send it. Raise NotRerunnableError, or BrokerAwayError within seconds.
    """
    sent = planned(task)
    return send_again(sent, asked_by(by, sent))


def rerun_run(run: TaskRun, by: str = "") -> str:
    """Send this run again, whether or not it is its task's last one. Otherwise like `rerun`."""
    sent = planned_run(run)
    return send_again(sent, asked_by(by, sent))


def asked_by(user: str, sent: "Sent") -> dict[str, str]:
    """Return what the sender's context says of a run that a user has had run again."""
    context = {BY: user} if user else {}
    return context if sent.run is None else {**context, OF: str(sent.run)}


def planned(task: SystemTask) -> "Sent":
    """Return what `rerun` would send. Raise NotRerunnableError if nothing is on record."""
    run = _last_of(task.runs.exclude(UNREGISTERED))
    return _scheduled(task) if run is None else Sent.by_run(task.name, run, "this task's last run")


def planned_run(run: TaskRun) -> "Sent":
    """Return what `rerun_run` would send."""
    return Sent.by_run(run.system_task.name, run, "this run")


@dataclass(frozen=True)
class Sent:
    """What is on record of a message."""

    name: str
    """The task's name."""
    which: str
    """The words for it in errors."""
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    intact: bool
    """True if the arguments are on record as they were."""
    options: dict[str, Any] | None
    """What it carried besides (see `sent_options`), or None if that is unknown."""
    queue: str
    was_decoded: bool
    """True if the arguments are those that the task got, and not yet those that were sent."""
    run: UUID | None = None
    """The id of the run whose message it was, or None for one of the schedule."""

    @classmethod
    def by_run(cls, name: str, run: TaskRun, which: str) -> "Sent":
        """Return what is on record of the message of a run."""
        return cls(
            name,
            which,
            run.args,
            run.kwargs,
            run.arguments_intact,
            run.sent_options,
            run.queue,
            was_decoded=run.start_timestamp is not None,
            run=run.pk,
        )


def _scheduled(task: SystemTask) -> Sent:
    """Return what beat's messages of this task carry. Raise NotRerunnableError if that varies."""
    entries = ScheduleEntry.objects.filter(task=task.name, uid=task.uid)
    found = [
        Sent(
            task.name,
            f"the entry {entry.entry} of the schedule",
            entry.args,
            entry.kwargs,
            entry.arguments_intact,
            entry.sent_options,
            (entry.sent_options or {}).get("queue", ""),
            was_decoded=False,
        )
        for entry in entries
    ]
    if not found:
        raise NotRerunnableError(
            "No run of this task is on record, and no entry of the schedule names it, "
            "so its arguments are unknown."
        )
    if any(replace(one, which="") != replace(found[0], which="") for one in found):
        names = ", ".join(entry.entry for entry in entries[:NAMED_ENTRIES])
        raise NotRerunnableError(
            "No run of this task is on record, and the entries of the schedule that name it differ "
            f"in their arguments or options: {names}{', …' if len(found) > NAMED_ENTRIES else ''}."
        )
    return found[0]


def check_arguments(sent: Sent) -> None:
    """Raise NotRerunnableError if the arguments are not on record as they were."""
    if not sent.intact:
        raise NotRerunnableError(
            f"The arguments of {sent.which} are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        )


def check_record(sent: Sent) -> None:
    """Raise NotRerunnableError if the message is not on record as it was, arguments and all."""
    check_arguments(sent)
    _options(sent)


def send_again(sent: Sent, context: Mapping[str, str] | None = None) -> str:
    """Send a task again, as `Sender.send` does. Return the Celery id of the new run."""
    with Sender([sent.name]) as sender:
        return sender.send(sent, context)


class Sender:
    """Sends several tasks again, over one connection for each app. A context manager."""

    def __init__(self, names: Iterable[str]) -> None:
        """Prepare for tasks of these names."""
        self._names = {*names}
        self._lines: dict[int, _Line] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, sent: Sent, context: Mapping[str, str] | None = None) -> str:
        """Send a task again. Return the Celery id of the new run.

        `context` is added to what SENDER_CONTEXT returns, and so is in the record of the new run.

        The workers are asked if they know the task. The registry of this process is not used,
        because the process may belong to another project. Raise NotRerunnableError or
        BrokerAwayError. After the latter, nothing else is sent to that broker.
        """
        check_arguments(sent)
        app = app_of(sent.name)
        if id(app) not in self._lines:
            connection = self._stack.enter_context(
                app.connection_for_write(
                    connect_timeout=CONNECT_TIMEOUT, transport_options=TRANSPORT_OPTIONS
                )
            )
            names = {name for name in self._names if app_of(name) is app}
            self._lines[id(app)] = _Line(app, connection, names)
        return self._lines[id(app)].send(sent, context or {})


@dataclass(slots=True)
class _Line:
    """A connection to the broker of an app, and which tasks the workers there know."""

    app: Celery
    connection: Connection
    names: set[str]
    known: dict[str, bool | None] | None = None
    is_away: bool = False

    def send(self, sent: Sent, context: Mapping[str, str]) -> str:
        if self.is_away:
            raise NotTriedError("It was not sent: the broker did not answer before.")
        try:
            return self._send(sent, context)
        except BrokerAwayError:
            self.is_away = True
            raise

    def _send(self, sent: Sent, context: Mapping[str, str]) -> str:
        options = {**_options(sent), **_destination(self.app, sent, self.connection)}
        serializer = options.get("serializer") or self.app.conf.task_serializer
        args, kwargs = _arguments(sent, serializer)
        if self.known is None:
            _connect(self.connection)
            self.known = _workers_know(self.app, self.names, self.connection)
        known = self.known[sent.name]
        if known is None:
            known = not _was_unknown(sent.name)
        if not known:
            raise NotRerunnableError(UNKNOWN)
        with added_context(context):
            return _send(self.app, sent.name, args, kwargs, options, self.connection)


def _options(sent: Sent) -> dict[str, Any]:
    """Return the options with which a message was sent, without its destination.

    Raise NotRerunnableError if one of them is unknown.
    """
    carried = sent.options
    if carried is None:
        raise NotRerunnableError(
            f"It is not on record what the message of {sent.which} carried besides its arguments: "
            "its headers, priority, expiry, time limits and serializer. "
            "Send the task from the project itself: it will be on record."
        )
    if missing := carried.get("missing"):
        raise NotRerunnableError(
            f"The message of {sent.which} is not on record as it was. "
            f"Missing: {', '.join(missing)}."
        )
    names = ("headers", "priority", "expires", "time_limit", "soft_time_limit")
    options = {name: carried[name] for name in names if name in carried}
    if types := carried.get("header_types"):
        # Where a broker keeps headers in JSON, it is kombu's.
        options["headers"] = join(options["headers"], types, partial(_decoded, "json"))
    if (content_type := carried.get("content_type")) is not None:
        options["serializer"] = _serializer(content_type)
    return options


def _arguments(sent: Sent, serializer: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments, with the types that the message carried."""
    arguments = {ARGS: sent.args or [], KWARGS: sent.kwargs or {}}
    if sent.was_decoded and serializer == "json" and any(map(has_envelope, arguments.values())):
        raise NotRerunnableError(
            f"An argument of {sent.which} is a dictionary with the keys __type__ and __value__ "
            "alone. A worker would read it from JSON as a value of another type."
        )
    types = (sent.options or {}).get("types", [])
    joined = join(arguments, types, partial(_decoded, serializer))
    return joined[ARGS], joined[KWARGS]


def _decoded(serializer: str, text: str) -> object:
    """Return the value of kombu's JSON.

    Its type may be one of the project's own that this process does not know. In a message of JSON,
    it is then sent as kombu had encoded it.
    """
    try:
        return json.loads(text)
    except Exception as error:
        if serializer == "json":
            return loads(text)
        raise NotRerunnableError("The type of an argument is not known here.") from error


def _serializer(content_type: str) -> str:
    try:
        return str(registry.type_to_name[content_type])
    except KeyError:
        raise NotRerunnableError(f"No serializer is known here for {content_type}.") from None


def _destination(app: Celery, sent: Sent, connection: Connection) -> dict[str, Any]:
    """Return the options for the exchange and the routing key, or for the queue.

    A task that is not known to have had either goes where the app routes it.
    """
    carried = sent.options or {}
    name, key = carried.get("exchange"), carried.get("routing_key", "")
    if not name or is_delayed(name):  # the delay is over
        return {"queue": sent.queue} if sent.queue else {}
    if connection.transport.driver_type == "amqp":
        # The broker knows the exchange. To declare it needs the very arguments of its declaration.
        return {"exchange": name, "routing_key": key, "declare": []}
    for queue in app.amqp.queues.values():
        exchange: Exchange = queue.exchange
        if exchange is not None and exchange.name == name:
            return {"exchange": exchange, "routing_key": key, "declare": [exchange]}
    # A broker such as Redis has no exchanges: their types are known to the apps that use them.
    if not sent.queue:
        raise NotRerunnableError(
            f"The exchange {name} and the queue of {sent.which} are not known here."
        )
    return {"queue": sent.queue}


def _last_of(runs: TaskRunQuerySet) -> TaskRun | None:
    """Return the run that started last or, if none has started, the one that was sent last."""
    runs = runs.newest_first()
    return runs.started().first() or runs.first()


def _was_unknown(name: str) -> bool:
    """Return True if the last run was discarded as unknown; such a run has no uid."""
    last = _last_of(TaskRun.objects.filter(system_task__name=name))
    return last is not None and TaskRun.objects.filter(UNREGISTERED, pk=last.pk).exists()


class _AllKnown(BaseException):
    """Raised to stop waiting: workers have answered that they know all tasks."""


def _workers_know(
    app: Celery, names: Iterable[str], connection: Connection
) -> dict[str, bool | None]:
    """Return True for each task that a worker knows, and False if those that answer do not.

    Return None for it if no worker answers in time, or none sends a valid answer.
    """
    answered = False
    unknown = {*names}
    wanted = frozenset(unknown)

    def read(replies: Any) -> None:  # noqa: ANN401 - a worker may send anything
        nonlocal answered
        for answer in replies.values() if isinstance(replies, dict) else ():
            if isinstance(answer, list):  # and not an error
                answered = True
                # A worker sends `name`, or `name [rate_limit=1/s]`.
                unknown.difference_update(str(text).partition(" [")[0] for text in answer)
                if not unknown:
                    raise _AllKnown

    lost: tuple[type[BaseException], ...] = (
        KombuError,
        *connection.recoverable_connection_errors,
    )
    control: Any = app.control
    mailbox = control.mailbox(connection)
    mailbox.producer_pool = None  # its connections have no time-outs, and may be dead
    try:
        mailbox.multi_call("registered", {"builtins": True}, timeout=ANSWER_TIMEOUT, callback=read)
    except _AllKnown:
        pass
    except lost:
        answered = False  # sending, which comes next, reports the error
    return {name: (False if answered else None) if name in unknown else True for name in wanted}


def _connect(connection: Connection) -> None:
    # This comes before anything is sent, so it is certain that nothing was.
    try:
        connection.default_channel  # noqa: B018 - reading it connects
    except OperationalError as error:
        raise BrokerAwayError("The task was not enqueued: the broker does not answer.") from error


def _send(
    app: Celery,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    connection: Connection,
) -> str:
    exchange = options.get("exchange")
    if isinstance(exchange, str):
        _check_exchange(exchange, connection)
    try:
        result = app.send_task(
            name,
            args=args,
            kwargs=kwargs,
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
