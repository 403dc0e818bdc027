"""Turn any Python value into JSON that Postgres stores and every client can read.

Postgres refuses NUL, lone surrogates and NaN in jsonb. A value that is too large is cut, and a note
in it says so.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import copysign, isfinite
from typing import Any, ClassVar

import orjson

from systemtasks.conf import conf
from systemtasks.runs.kinds import (
    BITS_LIMIT,
    LARGEST_INTEGER,
    built_in_number,
    field_names,
    is_enum,
    is_of,
    scalar_text,
    type_name,
)
from systemtasks.runs.records import TaskInfo
from systemtasks.runs.secret_names import hides, spelled
from systemtasks.runs.secret_texts import MASK, OwnSecrets, mask_text
from systemtasks.runs.typed_values import JSON, Typed, exact_text, readable, registry, type_of

DEPTH_LIMIT = 8
ITEM_LIMIT = 200
BUDGET = 5000
"""The maximum work for one value: an item costs 1, and so do 100 characters."""
KEY_LIMIT = 8192
"""The maximum length, in characters, of a key. A longer one is cut, and only then checked."""
JSON_LIMIT = 65_536
"""The maximum length, in characters, of a text that is read as JSON to mask values in it."""
JSON_STARTS = frozenset("{[ \t\r\n")
"""The first characters of a text that may be an object or an array of JSON."""
CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple, set, frozenset, deque)
"""The types whose items are cleaned. A subclass is read by the methods of its base type here."""
LARGEST_EXACT_FLOAT = 2**53


def utc(text: str) -> datetime:
    """Return the ISO 8601 date-time in UTC. A text without a time zone is in UTC already.

    Raise ValueError or OverflowError for any other text.
    """
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def moment(value: object) -> datetime | None:
    """Return the time for seconds since 1970 or an ISO 8601 text, or None for anything else."""
    if value is None:
        return None
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        return utc(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def clean_text(text: str, limit: int) -> str:
    """Return the text without NUL and lone surrogates, of at most about `limit` characters.

    `text` may be of a subclass of str.
    """
    if type(text) is not str:
        length, text = str.__len__(text), str.__getitem__(text, slice(limit))
        more = f"… ({length - limit} more characters)" if length > limit else ""
        return _storable(text + more)
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters)"
    return _storable(text)


def clean_column(text: str, limit: int) -> str:
    """Return the text as a column of `limit` characters can hold it."""
    if len(text) <= limit and text.isascii() and "\0" not in text:
        return text
    return _storable(text)[:limit]


def clean_end(text: str, limit: int) -> str:
    """Return the text like `clean_text`, but keep the end of a long one: a traceback needs it."""
    if len(text) > limit:
        text = f"({len(text) - limit} characters before) …{text[-limit:]}"
    return _storable(text)


def _storable(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Rendering:
    """Replaces a value when it is formatted, and prints as this text."""

    __slots__ = ("_representation", "_text")

    def __init__(self, text: str, representation: str | None = None) -> None:
        self._text = text
        self._representation = text if representation is None else representation

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._representation


FindTask = Callable[[str], TaskInfo]
"""Returns the properties of the task of this name."""

Each = Callable[[int, Any], Any]
"""Returns an item of a sequence in JSON's own types. It is called with the index and the item."""

MAPS = ("celery.map", "celery.starmap", "celery.chunks")
"""Celery's own tasks that call another one with each item of their argument `it`."""


@dataclass
class Cleaner:
    """Turns values into JSON. `intact` is True as long as no value had to be changed.

    This is the only code that reads nested values. It calls none of their methods (see `kinds`),
    and stops at the limits above.
    """

    text_limit: int
    masks: bool = True
    """True if values are masked by their names."""
    find_task: FindTask | None = None
    """Finds the task of a signature. Its rules mask the signature's arguments."""
    own: OwnSecrets | None = None
    """Values that are masked wherever they are."""
    keeps_types: bool = False
    """True if a value of a type that JSON does not have becomes a `Typed` where that is exact."""
    intact: bool = True
    masked: list[object] = field(default_factory=list)
    """The values that have been masked by their names."""
    has_typed: bool = False
    """True if there is a `Typed` in what it has returned."""
    _budget: int = BUDGET
    _open: set[int] = field(default_factory=set)
    _names: frozenset[str] = frozenset()
    """The names that the option of the task masks, as `spelled` returns them."""

    item_limit: ClassVar[int] = ITEM_LIMIT
    key_limit: ClassVar[int] = KEY_LIMIT
    reads_json: ClassVar[bool] = True
    """True if values are masked in texts that are JSON as well."""

    def clean(self, value: object, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value in JSON's own types."""
        self._budget -= 1
        kind = type(value)
        if kind is str:
            return self._string(value, depth)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(value)  # type: ignore[arg-type]
        for base in CONTAINERS:
            if issubclass(kind, base):
                return self._container(value, base, depth)
        if self.keeps_types and (typed := self._typed(value, depth)) is not None:
            return typed
        self.intact = False
        return self._other(value, depth)

    # The arguments of a task.

    def arguments(self, task: TaskInfo, args: object, kwargs: object) -> tuple[Any, Any]:
        """Return the arguments of a task in JSON's own types, masked by the task's own rules."""
        return self._arguments(task, args, kwargs, 0, is_complete=True)

    def _arguments(
        self, task: TaskInfo, args: object, kwargs: object, depth: int, *, is_complete: bool
    ) -> tuple[Any, Any]:
        before, self._names = self._names, task.masked_names
        try:
            positional = self._positional(task, args, depth, is_complete=is_complete)
            return positional, self._container_of(kwargs, depth, task=task)
        finally:
            self._names = before

    def _positional(self, task: TaskInfo, args: object, depth: int, *, is_complete: bool) -> Any:  # noqa: ANN401
        # The caller of a signature may put other arguments before its own.
        missing = 0 if is_complete else task.room_after(_size(args))
        masks_none = task.masks_no_position

        def clean(index: int, value: object) -> Any:  # noqa: ANN401
            if not masks_none:
                for place in range(index, index + missing + 1):
                    if task.masks(place, value):
                        return self._mask(value, is_secret=task.known)
            return self.clean(value, depth + 1)

        return self._container_of(args, depth, each=clean)

    def _container_of(
        self, value: object, depth: int, each: Each | None = None, task: TaskInfo | None = None
    ) -> Any:  # noqa: ANN401
        """Clean positional arguments by `each`, or the keyword arguments of `task`."""
        for base in CONTAINERS:
            if is_of(value, base) and (base is dict) is (task is not None):
                self._budget -= 1
                return self._container(value, base, depth, each, task)
        return self.clean(value, depth)

    def _prepared(self, value: Any, task: TaskInfo | None, depth: int) -> dict[str, Any]:  # noqa: ANN401
        """Return the items of a dictionary that are another task's arguments, cleaned.

        They are in a signature, or in the keyword arguments of one of MAPS.
        """
        find, get = self.find_task, dict.get
        if find is None or not self.masks:
            return {}
        if task is not None:
            if task.name in MAPS and is_of(mapped := get(value, "task"), dict):
                return {"it": self._mapped(task.name, get(mapped, "task"), get(value, "it"), depth)}
            return {}
        name, args, kwargs = get(value, "task"), get(value, "args"), get(value, "kwargs")
        is_signature = is_of(args, list) or is_of(args, tuple)
        if not is_signature or not is_of(name, str) or not is_of(kwargs, dict):
            return {}
        is_complete = get(value, "immutable") is True
        cleaned = self._arguments(find(name), args, kwargs, depth + 1, is_complete=is_complete)
        return dict(zip(("args", "kwargs"), cleaned, strict=True))

    def _mapped(self, map_name: str, name: object, items: object, depth: int) -> Any:  # noqa: ANN401
        """Return the items, cleaned. One of MAPS calls the task of this name with each of them."""
        if self.find_task is None or not is_of(name, str):
            return self.clean(items, depth + 1)
        task = self.find_task(name)

        def clean(index: int, item: object) -> Any:  # noqa: ANN401
            given = (item,) if map_name == "celery.map" else item
            cleaned = self._positional(task, given, depth + 2, is_complete=True)
            return cleaned[0] if given is not item else cleaned

        before, self._names = self._names, task.masked_names
        try:
            return self._container_of(items, depth + 1, each=clean)
        finally:
            self._names = before

    # Values that are masked by their names.

    def _mask(self, value: object, *, is_secret: bool = True) -> str:
        """Return the replacement of this value. `is_secret` is False if it may not be a secret."""
        self.intact = False
        if is_secret:
            self.masked.append(value)
        return MASK

    def _hides(self, name: str, value: object) -> bool:
        if not self.masks:
            return False
        if self._names and spelled(name) in self._names:
            return True
        # These reveal nothing, and many options have such names: `use_auth`, `page_token`.
        return value is not None and type(value) is not bool and hides(name)

    def _is_hidden_pair(self, value: Any) -> bool:  # noqa: ANN401
        """Return True for a name and its value, as in the headers of a request."""
        return len(value) == 2 and self._hides(_name_of(value[0]), value[1])

    def _hides_value(self, value: Any) -> bool:  # noqa: ANN401
        """Return True for a dictionary with a name and its value: `{"name": …, "value": …}`.

        The API of AWS has them as `Name` or `Key`, and `Value`.
        """
        get = dict.get
        if (item := get(value, "value")) is None and (item := get(value, "Value")) is None:
            return False
        return any(
            self._hides(_name_of(get(value, key)), item) for key in ("name", "key", "Name", "Key")
        )

    def _json(self, text: str, depth: int) -> str:
        """Return the text. If it is JSON, mask the values in it."""
        if depth >= DEPTH_LIMIT or len(text) > JSON_LIMIT:
            return text
        try:
            value = orjson.loads(text)
        except ValueError:
            return text
        count, intact, keeps_types = len(self.masked), self.intact, self.keeps_types
        self.keeps_types = False  # the text says all
        cleaned = self.clean(value, depth + 1)
        self.keeps_types = keeps_types
        if len(self.masked) == count:
            self.intact = intact
            return text
        return orjson.dumps(cleaned).decode()

    def _masked_json(self, value: bytes, depth: int) -> str | None:
        """Return these bytes as text with masked values, or None if they are no JSON with any."""
        if not self.masks or chr(value[0] if value else 0) not in JSON_STARTS:
            return None
        text = value.decode("utf-8", "replace")
        masked = self._json(text, depth)
        return None if masked == text else masked

    # The types of values.

    def _string(self, text: str, depth: int) -> Any:  # noqa: ANN401
        if text[:1] in JSON_STARTS and self.masks and self.reads_json:
            text = self._json(text, depth)
        intact = self.intact
        cleaned = self._text(text, self.text_limit)
        if self.keeps_types and cleaned != text and self.own is None:
            return self._kept(cleaned, text, intact=intact and len(text) <= self.text_limit)
        return cleaned

    def _kept(self, shown: Any, value: str | float, *, intact: bool) -> Any:  # noqa: ANN401
        """Return what is shown for this value. If that is intact, keep the value as its JSON."""
        self.intact = intact
        return self._with_type(shown, JSON, json.dumps(value)) if intact else shown

    def _typed(self, value: object, depth: int) -> Any:  # noqa: ANN401
        """Return a `Typed` for this value or, if its type cannot be kept, None."""
        if (name := type_of(value)) is not None:
            if (text := exact_text(value, self.text_limit)) is None:
                return None
            if type(value) is bytes and (masked := self._masked_json(value, depth)) is not None:
                return self._text(masked, self.text_limit)
            shown = self._text(text, self.text_limit)
            return self._with_type(shown, name) if shown == text else shown
        if registry.encode is None or (encoded := registry.encode(value)) is None:
            return None
        self._budget -= len(encoded) // 100
        shown, is_envelope = readable(encoded)
        # Without an envelope, a JSON message carries no type, and others may carry the value's own.
        self.intact = self.intact and is_envelope
        return self._with_type(self.clean(shown, depth), JSON, encoded)

    def _with_type(self, shown: Any, name: str, text: str | None = None) -> Typed:  # noqa: ANN401
        self.has_typed = True
        return Typed(shown, name, text)

    def _text(self, text: str, limit: int) -> str:
        cleaned = clean_text(text, limit)
        self._budget -= len(cleaned) // 100
        if self.own is not None:
            cleaned = self.own.mask(cleaned)
        if type(text) is not str or cleaned != text:
            self.intact = False
        return cleaned

    def _number(self, number: float) -> Any:  # noqa: ANN401
        if self.own is not None and self.own.is_masked(str(number)):
            self.intact = False
            return MASK
        if type(number) is float and isfinite(number):
            # Postgres prints a large float as an integer, with different digits, and -0.0 as 0.0.
            if abs(number) < LARGEST_EXACT_FLOAT and (number or copysign(1.0, number) > 0):
                return number
            if self.keeps_types:
                return self._kept(number, number, intact=self.intact)
            self.intact = False
            return number
        if type(number) is int and -LARGEST_INTEGER <= number <= LARGEST_INTEGER:
            return number
        intact = self.intact
        self.intact = False
        text = scalar_text(number, self.text_limit) or ""
        shown = self._named(text)
        if self.keeps_types and shown == text and _has_exact_text(number):
            return self._kept(shown, number, intact=intact)
        return shown

    def _named(self, text: str) -> Any:  # noqa: ANN401
        return self._text(text, self.text_limit)

    def _other(self, value: object, depth: int) -> Any:  # noqa: ANN401
        """Return text for a value that JSON has no type for: mostly the name of its type."""
        if is_of(value, str):
            return self._text(value, self.text_limit)
        if is_of(value, BaseException):
            return self._named(self._call(value, depth))
        if not is_enum(value) and (number := built_in_number(value)) is not None:
            return number if type(number) is bool else self._number(number)
        text = scalar_text(value, self.text_limit)
        return self._named(f"<{type_name(type(value))}>" if text is None else text)

    def _call(self, error: BaseException, depth: int) -> str:
        """Return the exception as `repr()` would show it."""
        given = self._printed(BaseException.args.__get__(error), depth + 1)  # type: ignore[attr-defined]
        listed = ", ".join(map(repr, given)) if type(given) is tuple else str(given)
        return f"{type_name(type(error))}({listed})"

    def _printed(self, value: object, depth: int) -> Any:  # noqa: ANN401
        printer = Printer(
            self.text_limit, self.masks, own=self.own, _budget=self._budget, _open=self._open
        )
        printed = printer.clean(value, depth)
        self._budget = printer._budget
        return printed

    def _container(
        self,
        value: object,
        base: type,
        depth: int,
        each: Each | None = None,
        task: TaskInfo | None = None,
    ) -> Any:  # noqa: ANN401
        if depth >= DEPTH_LIMIT or id(value) in self._open:
            self.intact = False
            reason = "nested too deeply" if depth >= DEPTH_LIMIT else "contains itself"
            return self._named(f"<{type_name(type(value))}: {reason}>")
        self._open.add(id(value))
        try:
            if base is dict:
                return self._mapping(value, depth, task)
            return self._sequence(value, base, depth, each)
        except RuntimeError:  # another thread is changing it
            self.intact = False
            return self._named(f"<{type_name(type(value))}: changed while it was read>")
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Any, depth: int, task: TaskInfo | None) -> dict[Any, Any]:  # noqa: ANN401
        if type(value) is not dict:
            self.intact = False
        cleaned: dict[Any, Any] = {}
        prepared = self._prepared(value, task, depth)
        hides_value = self._hides_value(value)
        masks_others = task is not None and task.masks_other_keywords
        for number, (key, item) in enumerate(dict.items(value)):
            if number == self.item_limit or self._budget <= 0:
                self.intact = False
                cleaned["…"] = self._named(f"({dict.__len__(value) - number} more)")
                break
            if is_of(key, str):
                name = self._text(key, self.key_limit)
            else:
                self.intact = False
                name = clean_text(str(self._printed(key, depth + 1)), self.key_limit)
            if masks_others and task is not None and task.masks_keyword(name):
                kept: Any = self._mask(item, is_secret=task.known)
            elif self._hides(name, item) or (hides_value and name in ("value", "Value")):
                kept = self._mask(item)
            elif name in prepared:
                kept = prepared[name]
            else:
                kept = self.clean(item, depth + 1)
            cleaned[self._key(key, name, cleaned)] = kept
        return cleaned

    def _key(self, key: object, name: str, others: dict[Any, Any]) -> Any:  # noqa: ANN401
        # Different keys may have the same text.
        return name if name not in others else f"{name} ({len(others)})"

    def _sequence(self, value: Any, base: Any, depth: int, each: Each | None) -> Any:  # noqa: ANN401
        # Celery passes positional arguments as a tuple or a list; JSON has only lists.
        if type(value) is not list and not (type(value) is tuple and depth == 0):
            self.intact = False
        if each is None and base is tuple and (names := field_names(type(value))):
            each = self._each_field(names, depth)
        cleaned: list[Any] = []
        option: str | None = None  # a word of a command, such as `--password`, before its value
        for number, item in enumerate(base.__iter__(value)):
            if number == self.item_limit or self._budget <= 0:
                self.intact = False
                cleaned.append(self._named(f"… ({base.__len__(value) - number} more)"))
                break
            if each is not None:
                cleaned.append(each(number, item))
            elif (kind := type(item)) is str:
                if option is not None and self._hides(option, item):
                    cleaned.append(self._mask(item))
                else:
                    self._budget -= 1
                    cleaned.append(self._string(item, depth + 1))
                option = item if item[:2] == "--" else None
            else:
                option = None
                if (kind is list or kind is tuple) and self.masks and self._is_hidden_pair(item):
                    cleaned.append(self._masked_pair(item, depth + 1))
                else:
                    cleaned.append(self.clean(item, depth + 1))
        return self._gathered(cleaned, base)

    def _each_field(self, names: tuple[str, ...], depth: int) -> Each:
        def clean(index: int, item: object) -> Any:  # noqa: ANN401
            if index < len(names) and self._hides(names[index], item):
                return self._mask(item)
            return self.clean(item, depth + 1)

        return clean

    def _masked_pair(self, pair: object, depth: int) -> Any:  # noqa: ANN401
        def clean(index: int, item: object) -> Any:  # noqa: ANN401
            return self._mask(item) if index else self.clean(item, depth + 1)

        return self._container_of(pair, depth, each=clean)

    def _gathered(self, items: list[Any], base: type) -> Any:  # noqa: ANN401
        return items


def _has_exact_text(number: float) -> bool:
    return type(number) is float or number.bit_length() <= BITS_LIMIT  # type: ignore[attr-defined]


def _size(value: object) -> int:
    """Return the number of items of a list or tuple, or 0 for any other value."""
    if is_of(value, tuple):
        return tuple.__len__(value)
    return list.__len__(value) if is_of(value, list) else 0


def _name_of(value: object) -> str:
    """Return the name at the start of a pair, or "" if this value is not a name."""
    if is_of(value, bytes):
        return bytes.decode(value[:KEY_LIMIT], "latin-1")
    return str.__getitem__(value, slice(KEY_LIMIT)) if is_of(value, str) else ""


class Printer(Cleaner):
    """Turns values into replacements that print alike, but run none of their code."""

    reads_json = False

    def _named(self, text: str) -> Any:  # noqa: ANN401
        return Rendering(self._text(text, self.text_limit))

    def _key(self, key: object, name: str, others: dict[Any, Any]) -> Any:  # noqa: ANN401
        return Rendering(name, name if type(key) is not str else repr(name))

    def _gathered(self, items: list[Any], base: type) -> Any:  # noqa: ANN401
        if base is list:
            return items
        if base is tuple:
            return tuple(items)
        return Rendering(f"{base.__name__}({items!r})")


class OwnMasker(Cleaner):
    """Masks values anywhere in JSON that has been cleaned already, and cuts nothing."""

    item_limit = key_limit = sys.maxsize

    def __init__(self, own: OwnSecrets | None, *, masks: bool = False) -> None:
        super().__init__(sys.maxsize, masks, own=own, _budget=sys.maxsize)


class TextMasker(OwnMasker):
    """Masks the secrets in the texts of cleaned JSON, too, and adds them to a list."""

    def __init__(self, found: list[str], own: OwnSecrets | None = None) -> None:
        super().__init__(own, masks=True)
        self._found = found

    def _string(self, text: str, depth: int) -> str:
        return mask_text(super()._string(text, depth), self._found)


class _Leaves(Cleaner):
    """Collects the texts and numbers in values."""

    def __init__(self, text_limit: int) -> None:
        super().__init__(text_limit)
        self.found: list[str] = []

    def _hides(self, name: str, value: object) -> bool:
        return False

    def _string(self, text: str, depth: int) -> Any:  # noqa: ANN401
        self.found.append(text[: self.text_limit])
        return super()._string(text, depth)

    def _number(self, number: float) -> Any:  # noqa: ANN401
        self.found.append(str(number))
        return number

    def _other(self, value: object, depth: int) -> Any:  # noqa: ANN401
        if is_of(value, bytes) or is_of(value, bytearray):
            text: str | None = bytes(value[: self.text_limit]).decode("utf-8", "replace")
        else:
            text = scalar_text(value, self.text_limit)
        if text is not None:
            self.found.append(text)
        return text


def leaves_of(values: Iterable[object], limit: int) -> list[str]:
    """Return the texts and numbers in values, as texts of at most `limit` characters."""
    found: list[str] = []
    for value in values:
        if type(value) is str and value[:1] not in JSON_STARTS:
            found.append(value[:limit])
        else:
            leaves = _Leaves(limit)
            leaves.clean(value)
            found += leaves.found
    return found


def describe(value: object, limit: int) -> str:
    """Return the value's text, or its type's name if printing it would run its own code."""
    printed = Printer(limit, conf().MASK_TEXTS).clean(value)
    if type(printed) is str:
        return printed
    text = str(printed)
    return text if type(printed) is Rendering else clean_text(text, limit)
