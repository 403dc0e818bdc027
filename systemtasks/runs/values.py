"""Turn any Python value into JSON that Postgres stores and every client can read.

Postgres refuses NUL, lone surrogates and NaN in jsonb. A value that is too large is cut, and a note
in it says so.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from typing import Any

from systemtasks.runs.kinds import (
    LARGEST_INTEGER,
    built_in_number,
    is_enum,
    is_of,
    scalar_text,
    type_name,
)

MASK = "********"
NOTHING = r"(?!)"  # matches no key
DEPTH_LIMIT = 8
ITEM_LIMIT = 200
BUDGET = 5000
"""The maximum work for one value: an item costs 1, and so do 100 characters."""
KEY_LIMIT = 8192
"""The number of characters of a key that are kept and compared with HIDDEN_KEYS."""
CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple, set, frozenset, deque)
"""The types whose items are cleaned. A subclass is read by the methods of its base type here."""
LARGEST_EXACT_FLOAT = 2**53


@lru_cache(4096)
def hides(pattern: str, name: str) -> bool:
    """Return True if the pattern, from the setting HIDDEN_KEYS, masks the value of this name."""
    return re.search(pattern, name, re.IGNORECASE) is not None


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
    """Return the text like `clean_text`, but keep the end of a long one, as a traceback needs."""
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
    """Replaces a value that is to be formatted, and prints as this text."""

    __slots__ = ("_representation", "_text")

    def __init__(self, text: str, representation: str | None = None) -> None:
        self._text = text
        self._representation = text if representation is None else representation

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._representation


@dataclass
class Cleaner:
    """Turns values into JSON. `intact` is True as long as no value had to be changed.

    No other code walks through values. This runs no code of theirs (see `kinds`), and stops at the
    limits above.
    """

    text_limit: int
    hidden_keys: str
    intact: bool = True
    _budget: int = BUDGET
    _open: set[int] = field(default_factory=set)

    def clean(self, value: object, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value in JSON's own types."""
        self._budget -= 1
        kind = type(value)
        if kind is str:
            return self._text(value, self.text_limit)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(value)  # type: ignore[arg-type]
        for base in CONTAINERS:
            if issubclass(kind, base):
                return self._container(value, base, depth)
        self.intact = False
        return self._other(value, depth)

    def _text(self, text: str, limit: int) -> str:
        cleaned = clean_text(text, limit)
        self._budget -= len(cleaned) // 100
        if type(text) is not str or cleaned != text:
            self.intact = False
        return cleaned

    def _number(self, number: float) -> Any:  # noqa: ANN401
        if type(number) is float and isfinite(number):
            # Postgres prints a large float as an integer, with different digits.
            self.intact = self.intact and abs(number) < LARGEST_EXACT_FLOAT
            return number
        if type(number) is int and -LARGEST_INTEGER <= number <= LARGEST_INTEGER:
            return number
        self.intact = False
        return self._named(scalar_text(number, self.text_limit) or "")

    def _named(self, text: str) -> Any:  # noqa: ANN401
        return self._text(text, self.text_limit)

    def _other(self, value: object, depth: int) -> Any:  # noqa: ANN401
        """Return a value for which JSON has no type as a text, mostly the name of its type."""
        if is_of(value, str):
            return self._text(value, self.text_limit)
        if is_of(value, BaseException):
            return self._named(self._call(value, depth))
        if not is_enum(value) and (number := built_in_number(value)) is not None:
            return number if type(number) is bool else self._number(number)
        text = scalar_text(value, self.text_limit)
        return self._named(f"<{type_name(type(value))}>" if text is None else text)

    def _call(self, error: BaseException, depth: int) -> str:
        """Return the exception as the call that creates it, like its `repr()`."""
        given = self._printed(BaseException.args.__get__(error), depth + 1)  # type: ignore[attr-defined]
        listed = ", ".join(map(repr, given)) if type(given) is tuple else str(given)
        return f"{type_name(type(error))}({listed})"

    def _printed(self, value: object, depth: int) -> Any:  # noqa: ANN401
        printer = Printer(self.text_limit, self.hidden_keys, True, self._budget, self._open)
        printed = printer.clean(value, depth)
        self._budget = printer._budget
        return printed

    def _container(self, value: object, base: type, depth: int) -> Any:  # noqa: ANN401
        if depth >= DEPTH_LIMIT or id(value) in self._open:
            self.intact = False
            reason = "nested too deeply" if depth >= DEPTH_LIMIT else "contains itself"
            return self._named(f"<{type_name(type(value))}: {reason}>")
        self._open.add(id(value))
        try:
            if base is dict:
                return self._mapping(value, depth)
            return self._sequence(value, base, depth)
        except RuntimeError:  # another thread is changing it
            self.intact = False
            return self._named(f"<{type_name(type(value))}: changed while it was read>")
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Any, depth: int) -> dict[Any, Any]:  # noqa: ANN401
        if type(value) is not dict:
            self.intact = False
        cleaned: dict[Any, Any] = {}
        for number, (key, item) in enumerate(dict.items(value)):
            if number == ITEM_LIMIT or self._budget <= 0:
                self.intact = False
                cleaned["…"] = self._named(f"({dict.__len__(value) - number} more)")
                break
            if is_of(key, str):
                name = self._text(key, KEY_LIMIT)
            else:
                self.intact = False
                name = clean_text(str(self._printed(key, depth + 1)), KEY_LIMIT)
            if hides(self.hidden_keys, name):
                self.intact = False
                cleaned[self._key(key, name, cleaned)] = MASK
            else:
                cleaned[self._key(key, name, cleaned)] = self.clean(item, depth + 1)
        return cleaned

    def _key(self, key: object, name: str, others: dict[Any, Any]) -> Any:  # noqa: ANN401
        # Different keys may have the same text.
        return name if name not in others else f"{name} ({len(others)})"

    def _sequence(self, value: Any, base: Any, depth: int) -> Any:  # noqa: ANN401
        # Celery passes positional arguments as a tuple or a list; JSON has only lists.
        if type(value) is not list and not (type(value) is tuple and depth == 0):
            self.intact = False
        cleaned = []
        for number, item in enumerate(base.__iter__(value)):
            if number == ITEM_LIMIT or self._budget <= 0:
                self.intact = False
                cleaned.append(self._named(f"… ({base.__len__(value) - number} more)"))
                break
            cleaned.append(self.clean(item, depth + 1))
        return self._gathered(cleaned, base)

    def _gathered(self, items: list[Any], base: type) -> Any:  # noqa: ANN401
        return items


class Printer(Cleaner):
    """Turns values into replacements that print like them, but run no code of theirs."""

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


def describe(value: object, limit: int) -> str:
    """Return the value's text, or its type's name if printing it would run its own code."""
    printed = Printer(limit, NOTHING).clean(value)
    if type(printed) is str:
        return printed
    text = str(printed)
    return text if type(printed) is Rendering else clean_text(text, limit)
