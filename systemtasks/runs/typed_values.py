"""Keep the types that a message carries and JSON does not have.

In a run's arguments, such a value stands as a reader wants to see it: a UUID as its text. Beside
them, `types` lists where it stands and what it was: `[[path, type], …]` if the type's text says
all, and otherwise `[[path, "json", text], …]`, with the JSON that kombu writes for the value.
"""

import ast
import json
from collections.abc import Callable
from copy import deepcopy
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from systemtasks.runs.kinds import knows_its_offset, scalar_text

ENVELOPE = {"__type__", "__value__"}
"""The keys of the object that kombu writes for a value of a type that JSON does not have."""
ARGS, KWARGS = "args", "kwargs"
"""The first steps of the paths in a run's arguments."""
JSON = "json"
"""The type of a value that is kept as JSON."""

Decode = Callable[[str], object]
"""Returns the value of JSON that kombu has written. It may raise anything."""

_READERS: dict[str, Callable[[str], object]] = {
    "uuid": UUID,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "bytes": ast.literal_eval,
}
"""Functions that return the value of a type for its text."""
_NAMES: tuple[tuple[type, str], ...] = (
    (UUID, "uuid"),
    (datetime, "datetime"),
    (date, "date"),
    (time, "time"),
    (Decimal, "decimal"),
    (bytes, "bytes"),
)


class Typed:
    """A value in JSON's own types (`shown`), and what is needed to make the real one of it."""

    __slots__ = ("shown", "text", "type")

    def __init__(self, shown: Any, type_: str, text: str | None = None) -> None:  # noqa: ANN401
        self.shown = shown
        self.type = type_
        self.text = text


def type_of(value: object) -> str | None:
    """Return the name of the value's type, or None if it is another one. Subclasses are others."""
    kind = type(value)
    for known, name in _NAMES:
        if kind is known:
            return name
    return None


def exact_text(value: Any, limit: int) -> str | None:  # noqa: ANN401 - of one of these types
    """Return the text of about `limit` characters from which the value can be read again.

    Return None if there is no such text.
    """
    kind = type(value)
    if kind is bytes:
        is_exact = len(value) <= limit // 4  # more are cut
    elif kind is datetime:
        is_exact = knows_its_offset(value.tzinfo)
    elif kind is time:
        is_exact = value.tzinfo is None or type(value.tzinfo) is timezone
    else:
        is_exact = True
    return scalar_text(value, limit) if is_exact else None


def split(value: Any, types: list[Any], *path: str | int) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value with what is shown for each Typed in it, whose types are added to a list.

    `path` are the keys and indexes that lead to the value.
    """
    kind = type(value)
    if kind is Typed:
        entry = [path, value.type]
        types.append(entry if value.text is None else [*entry, value.text])
        return split(value.shown, [])  # the text has those in it, too
    if kind is dict:
        return {name: split(item, types, *path, name) for name, item in value.items()}
    if kind is list:
        return [split(item, types, *path, index) for index, item in enumerate(value)]
    return value


def join(value: Any, types: list[Any], decode: Decode) -> Any:  # noqa: ANN401
    """Return a copy of the value with the real values in it, as `types` lists them.

    Let the exceptions of `decode` propagate.
    """
    around = [deepcopy(value)]
    for path, name, *text in types:
        place: Any = around
        key: Any = 0
        for step in path:
            place, key = place[key], step
        place[key] = decode(*text) if name == JSON else _READERS[name](place[key])
    return around[0]


def readable(text: str) -> tuple[Any, bool]:
    """Return the JSON without kombu's envelopes, and if the outermost object is one."""
    value = json.loads(text)
    return _without_envelopes(value), is_envelope(value)


def _without_envelopes(value: Any) -> Any:  # noqa: ANN401
    if type(value) is dict:
        if is_envelope(value):
            return _without_envelopes(value["__value__"])
        return {name: _without_envelopes(item) for name, item in value.items()}
    return list(map(_without_envelopes, value)) if type(value) is list else value


def is_envelope(value: object) -> bool:
    """Return True for a dictionary that a worker would read as a value of another type."""
    return type(value) is dict and value.keys() == ENVELOPE


def has_envelope(value: object) -> bool:
    """Return True if such a dictionary is anywhere in these arguments."""
    if type(value) is dict:
        return is_envelope(value) or any(map(has_envelope, value.values()))
    return type(value) is list and any(map(has_envelope, value))


class _Registry:
    """The function that encodes values of a project's own types. Only kombu's users set it."""

    encode: Callable[[object], str | None] | None = None


registry = _Registry()
