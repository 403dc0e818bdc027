"""What a process tells of an attempt, as one line of the journal.

The thread that runs a task, or sends one, tells no more than it must, and as Celery has it. The
writer's thread makes sense of it later, in batches, at a fraction of that time (`reading.py`).
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
"""The message header that says when a task was sent, in seconds since 1970, UTC."""
CONTEXT_HEADER = "systemtasks_context"
"""The message header with what SENDER_CONTEXT said, as JSON."""
BEAT_HEADER = "celery_beat_task"
"""The message header that says that beat sent it; Celery's own."""

TEXT_LIMIT = 4097
"""How many characters of a foreign value are kept at the least: one more than are of any use."""
LARGE = 32_768  # bytes of a line, from which on it is worth a look why


@dataclass(slots=True)
class Entry:
    """A line of the journal that waits to be a record."""

    line: bytes
    state: State
    _is_final: bool = False
    _is_read: bool = False

    def make_final(self) -> bool:
        """Make a provisional end final. Return False if the line has been read already."""
        # In this order, here and below, no lock is needed.
        self._is_final = True
        return not self._is_read

    def record(self) -> RunRecord:
        """Return the record of its attempt. Raises what `read` raises."""
        self._is_read = True
        record = read(self.line)
        if self._is_final:
            record.provisional, record.lease = False, None
        return record


def entry(
    task: TaskInfo,
    request: tuple[object, ...],
    arguments: Arguments,
    state: State,
    told: dict[str, Any],
) -> Entry:
    """The entry of an attempt in this state.

    `request` is what `fields_of` makes; all of `told`, which is what else there is to say, is JSON
    but for its messages, or one of orjson's own types.
    """
    told["task"], told["request"], told["state"] = task.told, request, state
    told["args"], told["kwargs"], told["intact"], told["first_uid"] = arguments
    try:
        line = orjson.dumps(told)
    except TypeError:  # a foreign sender, one whose serializer is not JSON, or odd log records
        clean = Cleaner(TEXT_LIMIT, NOTHING).clean
        told["request"] = [clean(value) for value in request]
        if isinstance(messages := told.get("messages"), list):
            told["messages"] = [orjson.Fragment(dumped(message)) for message in messages]
        line = orjson.dumps(told)
    if len(line) > LARGE and any(type(one) is str and len(one) > TEXT_LIMIT for one in request):
        return entry(task, tuple(map(_cut, request)), arguments, state, told)
    # A copy, since orjson's own bytes hold on to a buffer of several times their size.
    return Entry(line + b"\n", state)


def _cut(value: object) -> object:
    return value[:TEXT_LIMIT] if type(value) is str else value


def fields_of(request: Mapping[str, Any]) -> tuple[object, ...]:
    """What `reading.Request` names, in that order, of Celery's message or request.

    They may hold anything. What is no text or number becomes JSON here and now.
    """
    # Not the attributes of Celery's Context, which cost more.
    get = request.get
    own, where = get, get("delivery_info")
    if SENT_HEADER not in request and is_of(headers := get("headers"), dict):
        own = partial(dict.get, headers)  # in message protocol 1 they are apart from the fields
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
