"""The line of the journal: its version, fields, encoder and decoder, and the message's headers.

A line reports on one run: it was sent, it is in progress, or it has ended. The thread that
sends or runs a task encodes only what is necessary, as Celery provides it. The thread
of the writer decodes the lines later, in batches, while no task waits for it.

The fields from Celery's message may have any value: they are as the sender wrote them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, NotRequired, TypedDict, TypeGuard, cast
from uuid import UUID, uuid5

import orjson

from systemtasks.conf import conf
from systemtasks.ids import NAMESPACE, new_id
from systemtasks.runs import sent_options
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.kinds import is_of
from systemtasks.runs.messages import dumped, log_events
from systemtasks.runs.records import NAME_LIMIT, RunRecord, TaskInfo
from systemtasks.runs.secret_texts import OwnSecrets, mask_text
from systemtasks.runs.sent_options import QUEUE
from systemtasks.runs.values import Cleaner, TextMasker, clean_column, moment
from systemtasks.states import State, Status

VERSION = 7
"""The version of the format. Change it with any of the fields below."""

SENT_HEADER = sent_options.SENT
"""The message header with the time at which a task was sent, in seconds since 1970, UTC."""
CONTEXT_HEADER = "systemtasks_context"
"""The message header with the dictionary that SENDER_CONTEXT returned, as JSON."""
RUN_HEADER = "systemtasks_run"
"""The message header with the id of the run: a new one for every message, also for a retry."""
PARENT_HEADER = "systemtasks_parent"
"""The message header with the id of the run that sent the message."""
REPLACES_HEADER = "systemtasks_replaces"
"""The message header with the id of the run that called `self.replace`."""
EXECUTION = "systemtasks_execution"
"""The key, in a request, of the id that a worker's main process gives to each delivery.

It is no header: Celery copies unknown keys of a request to the message of a retry, and there it is
removed.
"""
BEAT_HEADER = "celery_beat_task"
"""Celery's own message header, set on messages that beat sends."""

CONTEXT_LIMIT = 4096
"""The maximum size of CONTEXT_HEADER, in bytes of JSON."""
TEXT_LIMIT = 4097
"""The maximum length, in characters, of a value from another sender.

It is one more than any reader uses, so that a cut value is still too long.
"""
LARGE = 32_768
"""The size of a line, in bytes, above which its request's texts are checked for their length."""
BEAT = "celerybeat@"
"""The prefix of the sender of a run that beat sent."""

_LETTER = re.compile(r"[^\W\d_]")
_HEX = "[0-9a-f]"
_UUID = re.compile(f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}")
"""The text of a UUID as Postgres writes it, and Python."""
_STATES = {state.value: state for state in State}
_STATUSES = {status.value: status for status in Status}
UUID_LENGTH = 36
"""The length of a UUID's text, in characters."""

JUNK_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError)
"""The errors that `decode` raises if the line is not valid."""


class TaskFields(TypedDict):
    """The fields of a task in a line; see `TaskInfo`."""

    name: str
    description: str
    expires_after: float | None
    """Seconds."""
    save_on_success: bool


class RequestFields(TypedDict, total=False):
    """The fields of Celery's message or request in a line. Each may be None, or left out."""

    celery_id: Any
    retries: Any
    eta: Any
    queue: Any
    worker: Any
    sender: Any
    parent_id: Any
    root_id: Any
    of_beat: Any
    sent: Any
    context: Any
    run: Any
    parent_run: Any
    replaces: Any
    redelivered: Any
    options: Any
    """The result of `sent_options.fields_of`, if it is not None."""


class Line(TypedDict):
    """The fields of a line; see `RunRecord` for those that are not explained here.

    To be encoded, all but the request and the messages must be of types that orjson knows.
    """

    task: Any
    """TaskFields; the encoder is given the result of `task_fields`."""
    request: RequestFields
    state: State
    status: Status
    uid: str
    first_uid: str
    args: str | None
    kwargs: str | None
    arguments_intact: bool
    argument_types: NotRequired[str | None]
    """`Arguments.types`, if it is not None."""
    start: NotRequired[float]
    """Seconds since 1970, UTC."""
    duration: NotRequired[float | None]
    """Seconds, or None for a run in progress."""
    exception: NotRequired[str]
    messages: NotRequired[Any]
    """A list of `Message`; the encoder is given the result of `Messages.for_journal`."""
    execution: NotRequired[str | None]
    replaced_by: NotRequired[str | None]
    lease: NotRequired[str | None]
    provisional: NotRequired[bool]
    from_main_process: NotRequired[bool]
    is_shortened: NotRequired[bool]
    """True if what the message carried is left out."""


@dataclass(slots=True)
class Entry:
    """A line of the journal, and the state of the run that it describes."""

    line: bytes
    state: State
    _is_final: bool = False
    _is_read: bool = False

    def make_final(self) -> bool:
        """Make a provisional end final. Return False if the line has been read already."""
        # Each of the two methods sets its flag before it reads the other one: no lock is needed.
        self._is_final = True
        return not self._is_read

    def record(self) -> RunRecord:
        """Return the record of the attempt. Let the exceptions of `decode` propagate."""
        self._is_read = True
        record = decode(self.line)
        if self._is_final:
            record.provisional, record.lease = False, None
        return record


# The encoder, in the thread that sends or runs a task.


def make_entry(line: Line) -> Entry:
    """Return the entry of an attempt with these fields."""
    return Entry(encode(line), line["state"])


def encode(line: Line) -> bytes:
    """Return the line as JSON that ends with a newline."""
    try:
        text = orjson.dumps(line)
    except TypeError:  # another sender, a serializer other than JSON, or unusual log records
        text = orjson.dumps(_clean(line))
    if len(text) > LARGE and any(map(_is_long, line["request"].values())):
        return encode({**line, "request": _cut(line["request"])})
    # Copied, because the bytes that orjson returns keep a buffer of several times their size.
    return text + b"\n"


def shortened(line: Line, task: TaskInfo) -> Line:
    """Return the line of a run of this task with only what it needs to become a row."""
    request = {
        name: value[: NAME_LIMIT + 1] if isinstance(value, str) else value
        for name, value in line["request"].items()
        if name not in ("context", "options")
    }
    return {
        **line,
        "task": task_fields(replace(task, description="")),
        "request": cast("RequestFields", request),
        "args": None,
        "kwargs": None,
        "arguments_intact": False,
        "argument_types": None,
        "exception": "",
        "messages": [],
        "is_shortened": True,
    }


def request_fields(request: Mapping[str, Any]) -> RequestFields:
    """Return the fields of a line for Celery's message or request.

    A field may have a value of any type. One that is neither a text nor a number becomes JSON here.
    """
    # The attributes of Celery's Context would be slower.
    get = request.get
    own, where = get, get("delivery_info")
    if SENT_HEADER not in request and is_of(headers := get("headers"), dict):
        own = partial(dict.get, headers)  # message protocol 1 keeps headers apart from the fields
    fields: RequestFields = {
        "celery_id": get("id"),
        "retries": get("retries"),
        "queue": _queue(where) if (queue := get(QUEUE)) is None else queue,
        "worker": get("hostname"),
        "sender": get("origin"),
        "root_id": get("root_id"),
        "sent": own(SENT_HEADER),
        "run": own(RUN_HEADER),
    }
    # Most runs have none of these.
    if (parent_id := get("parent_id")) is not None:
        fields["parent_id"] = parent_id
    if (eta := get("eta")) is not None:
        fields["eta"] = eta
    if (of_beat := get(BEAT_HEADER)) is not None or (of_beat := own(BEAT_HEADER)) is not None:
        fields["of_beat"] = of_beat
    if (context := own(CONTEXT_HEADER)) is not None:
        fields["context"] = context
    _add_links(fields, own)
    if is_of(where, dict) and dict.get(where, "redelivered") is True:
        fields["redelivered"] = 1  # a number, of which each type below is known
    for value in fields.values():
        kind = type(value)  # compared by identity, because its metaclass may have code of its own
        if kind is not str and kind is not float and kind is not int and value is not None:
            fields = _clean_request(fields)
            break
    if options := sent_options.fields_of(request, where):
        fields["options"] = options
    return fields


def _add_links(fields: RequestFields, get: Callable[[str], Any]) -> None:
    """Add the runs that a message's headers name, if it has any."""
    if (parent_run := get(PARENT_HEADER)) is not None:
        fields["parent_run"] = parent_run
    if (replaces := get(REPLACES_HEADER)) is not None:
        fields["replaces"] = replaces


def _queue(where: object) -> object:
    """Return the queue for a `delivery_info`, or None if it is not known."""
    if not is_of(where, dict) or dict.get(where, "exchange"):
        return None
    # The exchange without a name routes by the queue's own name.
    return dict.get(where, "routing_key")


@lru_cache(maxsize=1000)  # a line is written for every run of a task
def task_fields(task: TaskInfo) -> orjson.Fragment:
    """Return the fields of a line for a task, encoded."""
    expires_after = task.expires_after
    fields: TaskFields = {
        "name": task.name,
        "description": task.description,
        "expires_after": None if expires_after is None else expires_after.total_seconds(),
        "save_on_success": task.save_on_success,
    }
    return orjson.Fragment(orjson.dumps(fields))


def _clean(line: Line) -> Line:
    """Return the line with values that orjson encodes."""
    cleaned: Line = {**line, "request": _clean_request(line["request"])}
    if isinstance(messages := line.get("messages"), list):
        cleaned["messages"] = orjson.Fragment(b"[" + b",".join(map(dumped, messages)) + b"]")
    return cleaned


def _clean_request(request: RequestFields) -> RequestFields:
    clean = Cleaner(TEXT_LIMIT, masks=False).clean
    return cast("RequestFields", {name: clean(value) for name, value in request.items()})


def _cut(request: RequestFields) -> RequestFields:
    long = {name: value[:TEXT_LIMIT] for name, value in request.items() if _is_long(value)}
    return cast("RequestFields", {**request, **long})


def _is_long(value: object) -> TypeGuard[str]:
    return type(value) is str and len(value) > TEXT_LIMIT


# The decoder, in the writer's thread.


def decode(text: bytes) -> RunRecord:
    """Return the record of a line. Raise one of JUNK_ERRORS if it is not a valid line."""
    line: Line = orjson.loads(text)
    masks = conf().MASK_TEXTS
    own = _mask(line) if masks else None
    task: TaskFields = line["task"]
    request = line["request"]
    state, start, duration = _STATES[line["state"]], moment(line.get("start")), line.get("duration")
    sent, eta = moment(request.get("sent")), moment(request.get("eta"))
    # The duration is measured by the monotonic clock, so a change of the system's clock cannot end
    # a run before its start.
    finish = start + timedelta(seconds=duration) if start and duration is not None else None
    status = _STATUSES[line["status"]]
    execution = _execution(line.get("execution"))
    celery_id, parent_id, root_id, queue, worker, sender = _columns(request)
    return RunRecord(
        name=task["name"],
        description=task["description"],
        uid=line["uid"],
        first_uid=line["first_uid"],
        id=uuid_or_none(request.get("run")) or execution or new_id(),
        execution=execution,
        celery_id=celery_id,
        attempt=_attempt(request.get("retries")),
        redelivered=request.get("redelivered") == 1,
        replaces=uuid_or_none(request.get("replaces")),
        replaced_by=uuid_or_none(line.get("replaced_by")),
        parent_run=uuid_or_none(request.get("parent_run")),
        state=state,
        status=status,
        queue=queue,
        worker=worker,
        sender=sender,
        # When an orphaned run is sent again, Celery names the first attempt as its parent.
        parent_id="" if parent_id == celery_id else parent_id,
        # Celery names a run that descends from none as its own root. It takes no space in its row.
        root_id="" if root_id == celery_id else root_id,
        context=_object(request.get("context")),
        sent_options=None
        if line.get("is_shortened")
        else sent_options.column(
            request.get("options"), sent, own, masks=masks, types=line.get("argument_types")
        ),
        sent_timestamp=sent,
        eta_timestamp=eta,
        start_timestamp=start,
        finish_timestamp=finish,
        wait=_wait(sent, eta, start),
        duration=duration,
        args=line["args"],
        kwargs=line["kwargs"],
        arguments_intact=line["arguments_intact"],
        exception=line.get("exception", ""),
        messages=log_events(line.get("messages", ())),
        # Set for a run in progress, too: it may have no other end than the reaper's.
        expires=_expiry(task["expires_after"], finish or start or eta or sent, status),
        lease=line.get("lease"),
        provisional=line.get("provisional", False),
        from_main_process=line.get("from_main_process", False),
        save_run=task["save_on_success"] or state is not State.SUCCESS,
    )


def _mask(line: Line) -> OwnSecrets | None:
    """Mask the secrets in the texts of a line. Return those in the arguments, if there are any.

    They are masked in the other texts as well.
    """
    found: list[str] = []
    given = Arguments(line["args"], line["kwargs"], types=line.get("argument_types"))
    masked = without_secrets(given, found)
    if masked is not given:
        line["args"], line["kwargs"], line["arguments_intact"] = masked.args, masked.kwargs, False
        line["argument_types"] = None
    own = OwnSecrets.of(found)
    if exception := line.get("exception"):
        line["exception"] = _mask_text(exception, own)
    if messages := line.get("messages"):
        line["messages"] = [_mask_message(message, own) for message in messages]
    if (context := line["request"].get("context")) is not None:
        line["request"]["context"] = _mask_json(_object(context), [], own)
    return own


def without_secrets(arguments: Arguments, found: list[str] | None = None) -> Arguments:
    """Return the arguments with the secrets in their texts masked, and add them to `found`."""
    found = [] if found is None else found
    args, kwargs = _mask_json(arguments.args, found), _mask_json(arguments.kwargs, found)
    if not found and _mask_json(arguments.types, found) == arguments.types:
        return arguments
    return arguments._replace(args=args, kwargs=kwargs, intact=False, types=None)


def _mask_text(text: Any, own: OwnSecrets | None) -> Any:  # noqa: ANN401
    if type(text) is not str:
        return text
    text = mask_text(text)
    return text if own is None else own.mask(text)


def _mask_message(message: Any, own: OwnSecrets | None) -> Any:  # noqa: ANN401
    when, level, logger, event, attributes = message
    if attributes:
        attributes = TextMasker([], own).clean(attributes)
    return when, level, logger, _mask_text(event, own), attributes


def _mask_json(text: str | None, found: list[str], own: OwnSecrets | None = None) -> str | None:
    """Return JSON with the secrets in its texts masked, and add them to `found`."""
    if not text or _LETTER.search(text) is None:
        return text
    # Nearly all texts are found to have no secret before they are decoded. Those with an escaped
    # character are decoded, since it would hide the beginning of a word.
    if own is None and "\\" not in text and mask_text(text) == text:
        return text
    try:
        value = orjson.loads(text)
    except ValueError:  # a context that another sender wrote is left out
        return text
    return orjson.dumps(TextMasker(found, own).clean(value)).decode()


def id_text(celery_id: object) -> str:
    """Return a Celery id as a text for its column.

    One that is too long is cut, and ends in a digest of the whole: two of them remain two.
    """
    text = celery_id if type(celery_id) is str else str(celery_id)
    text = clean_column(text, len(text))
    if len(text) <= NAME_LIMIT:
        return text
    digest = sha256(text.encode()).hexdigest()
    return f"{text[: NAME_LIMIT - len(digest) - 1]}-{digest}"


def _execution(text: object) -> str | None:
    """Return the id of an execution, or None for a message that was only sent.

    One of another program is no UUID, and becomes one that is the same for each line.
    """
    if text is None:
        return None
    return uuid_or_none(text) or str(uuid5(NAMESPACE, str(text)))


def uuid_or_none(text: object) -> str | None:
    """Return a UUID's text as Postgres writes it, or None if it is another value."""
    if type(text) is not str or len(text) != UUID_LENGTH:
        return None
    if _UUID.fullmatch(text):
        return text  # nearly always; an object takes five times as long
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _sender(request: RequestFields) -> object:
    sender = request.get("sender") or ""
    if not request.get("of_beat"):
        return sender
    # Celery names beat's process `gen123@host`, like any other.
    return f"{BEAT}{str(sender).rpartition('@')[2]}"


def _wait(sent: datetime | None, eta: datetime | None, start: datetime | None) -> float | None:
    """Return the seconds from a run's due time to its start, or None if one is not known."""
    ready = max(sent, eta) if sent and eta else sent or eta
    if ready is None or start is None:
        return None
    # Two hosts' clocks may differ by more than the wait.
    return max((start - ready).total_seconds(), 0.0)


def _expiry(seconds: float | None, end: datetime | None, status: Status) -> datetime | None:
    if seconds is None or end is None:
        return None
    longer = conf().ERRORS_KEPT_LONGER_DAYS if status == Status.ERROR else 0
    try:
        return end + timedelta(days=longer, seconds=seconds)
    except OverflowError:  # it lies after the year 9999
        return None


def _attempt(retries: object) -> int:
    """Return the number of the attempt, or 1 if `retries` does not fit the column."""
    return retries + 1 if type(retries) is int and 0 < retries < 2**31 - 1 else 1


def _columns(request: RequestFields) -> Sequence[str]:
    """Return the ids of the run, its parent and its root, its queue, worker and sender.

    They are texts that their columns can hold.
    """
    get = request.get
    ids = get("celery_id") or "", get("parent_id") or "", get("root_id") or ""
    others = get("queue") or "", get("worker") or "", _sender(request)
    values: tuple[Any, ...] = ids + others
    try:
        # Checked as one text, because nearly all values are valid.
        together = "".join(values)
    except TypeError:
        together = "\0"
    if clean_column(together, NAME_LIMIT) is together:
        return values
    return [*map(id_text, ids), *(clean_column(str(value), NAME_LIMIT) for value in others)]


def _object(text: object) -> str:
    """Return the text if it is a JSON object that Postgres accepts, or else "{}"."""
    if not isinstance(text, str) or len(text) > CONTEXT_LIMIT or "\\u0000" in text:
        return "{}"
    try:
        return text if isinstance(orjson.loads(text), dict) else "{}"
    except ValueError:
        return "{}"
