"""Encode an attempt as one line of the journal.

The thread that runs or sends a task writes only what is necessary, in the form in which Celery has
it. The writer's thread decodes the lines later, in batches, which takes far less time
(`reading.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from systemtasks.runs.arguments import Arguments
from systemtasks.runs.kinds import is_of
from systemtasks.runs.messages import dumped
from systemtasks.runs.reading import read
from systemtasks.runs.records import RunRecord, TaskInfo
from systemtasks.runs.values import NOTHING, Cleaner
from systemtasks.states import State

SENT_HEADER = "systemtasks_sent"
"""The message header with the time at which a task was sent, in seconds since 1970, UTC."""
CONTEXT_HEADER = "systemtasks_context"
"""The message header with the dictionary that SENDER_CONTEXT returned, as JSON."""
BEAT_HEADER = "celery_beat_task"
"""Celery's own message header, set on messages that beat sends."""

TEXT_LIMIT = 4097
"""The maximum length, in characters, of a value from another sender.

It is one more than any reader uses, so that a cut value is still too long.
"""
LARGE = 32_768
"""The size of a line, in bytes, above which its request's texts are checked for their length."""


@dataclass(slots=True)
class Entry:
    """A line of the journal, and the state of the attempt that it describes."""

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
        """Return the record of the attempt. Raise what `read` raises."""
        self._is_read = True
        record = read(self.line)
        if self._is_final:
            record.provisional, record.lease = False, None
        return record


def make_entry(
    task: TaskInfo,
    request: tuple[object, ...],
    arguments: Arguments,
    state: State,
    fields: dict[str, Any],
) -> Entry:
    """Return the entry of an attempt in this state.

    `request` is the result of `fields_of`. `fields` are the other fields of the line, and this
    function adds to them. All but the messages must be values that orjson can encode.
    """
    fields["task"], fields["request"], fields["state"] = task.journal_fields, request, state
    fields["args"], fields["kwargs"], fields["intact"], fields["first_uid"] = arguments
    try:
        line = orjson.dumps(fields)
    except TypeError:  # another sender, a serializer other than JSON, or unusual log records
        clean = Cleaner(TEXT_LIMIT, NOTHING).clean
        fields["request"] = [clean(value) for value in request]
        if isinstance(messages := fields.get("messages"), list):
            fields["messages"] = [orjson.Fragment(dumped(message)) for message in messages]
        line = orjson.dumps(fields)
    if len(line) > LARGE and any(type(one) is str and len(one) > TEXT_LIMIT for one in request):
        return make_entry(task, tuple(map(_cut, request)), arguments, state, fields)
    # Copied, because the bytes that orjson returns keep a buffer of several times their size.
    return Entry(line + b"\n", state)


def _cut(value: object) -> object:
    return value[:TEXT_LIMIT] if type(value) is str else value


def fields_of(request: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the fields of Celery's message or request that `reading.Request` names, in its order.

    A field may have a value of any type. One that is neither a text nor a number becomes JSON here.
    """
    # The attributes of Celery's Context would be slower.
    get = request.get
    own, where = get, get("delivery_info")
    if SENT_HEADER not in request and is_of(headers := get("headers"), dict):
        own = partial(dict.get, headers)  # message protocol 1 keeps headers apart from the fields
    of_beat = get(BEAT_HEADER)
    fields = (
        get("id"),
        get("retries"),
        get("eta"),
        dict.get(where, "routing_key") if is_of(where, dict) else None,
        get("hostname"),
        get("origin"),
        get("parent_id"),
        get("root_id"),
        own(BEAT_HEADER) if of_beat is None else of_beat,
        own(SENT_HEADER),
        own(CONTEXT_HEADER),
    )
    for field in fields:
        if field is not None:
            kind = type(field)
            if kind is not str and kind is not float and kind is not int:
                return tuple(map(Cleaner(TEXT_LIMIT, NOTHING).clean, fields))
    return fields
