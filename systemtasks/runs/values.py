"""Any Python value as one that Postgres stores as JSON and every client reads.

Postgres refuses NUL, lone surrogates and NaN in jsonb. What is too large is cut, and says so.
"""

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from math import isfinite
from types import TracebackType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

MASK = "********"
DEPTH_LIMIT = 8
ITEM_LIMIT = 200
BUDGET = 5000
"""How much of one value is looked at: items, and hundreds of characters."""
KEY_LIMIT = 8192
"""How many characters of a key are kept, and looked at for whether it hides its value."""
SEQUENCES = (list, tuple, set, frozenset)
CONTAINERS = (dict, *SEQUENCES, Mapping)
LARGEST_INTEGER = 2**63 - 1
LARGEST_EXACT_FLOAT = 2**53


@lru_cache(4096)
def hides(pattern: str, name: str) -> bool:
    """Whether what has this name is masked, by the setting HIDDEN_KEYS."""
    return re.search(pattern, name, re.IGNORECASE) is not None


def utc(text: str) -> datetime:
    """The ISO 8601 date-time in UTC, which is also the zone of a text that names none.

    Raises ValueError or OverflowError for any other text.
    """
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def moment(value: object) -> datetime | None:
    """A time that somebody gives: seconds since 1970, or ISO 8601; None for anything else."""
    if value is None:
        return None
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        return utc(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def clean_text(text: str, limit: int) -> str:
    """The text without NUL and lone surrogates, of at most about `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters)"
    return _storable(text)


def clean_column(text: str, limit: int) -> str:
    """The text as a column of `limit` characters holds it."""
    if len(text) <= limit and text.isascii() and "\0" not in text:
        return text
    return _storable(text)[:limit]


def clean_end(text: str, limit: int) -> str:
    """Like `clean_text`, but of a long text the end is kept: a traceback's last line says most."""
    if len(text) > limit:
        text = f"({len(text) - limit} characters before) …{text[-limit:]}"
    return _storable(text)


def _storable(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def describe(value: object, limit: int) -> str:
    """The value's repr, or where that fails, its type."""
    return clean_text(
        _text_of(partial(repr, value), f"{type(value).__qualname__} whose repr"), limit
    )


def _text_of(make: Callable[[], str], what: str) -> str:
    """The text that this makes of a task's own object; where it raises, that `what` does."""
    try:
        return make()
    except SoftTimeLimitExceeded:
        raise  # it is the task's, which happens to be here
    except Exception as error:  # noqa: BLE001 - a task's own objects may raise anything
        return f"<{what} raises {type(error).__qualname__}>"


@dataclass(slots=True)
class Cleaner:
    """Turns values into JSON; `intact` says whether each came through as it was."""

    text_limit: int
    hidden_keys: str
    intact: bool = True
    _budget: int = BUDGET
    _open: set[int] = field(default_factory=set)

    def clean(self, value: object, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        """The value in JSON's own types, whatever its own methods raise."""
        try:
            return self._clean(value, depth)
        except SoftTimeLimitExceeded:
            raise  # it is the task's, which happens to be here
        except Exception as error:  # noqa: BLE001 - or another thread may change it meanwhile
            self.intact = False
            return f"<{type(value).__qualname__} that raises {type(error).__qualname__}>"

    def _clean(self, value: object, depth: int) -> Any:  # noqa: ANN401
        self._budget -= 1
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(value, self.text_limit)  # type: ignore[arg-type]
        if kind is int and -LARGEST_INTEGER <= value <= LARGEST_INTEGER:  # type: ignore[operator]
            return value
        if kind is float and isfinite(value):  # type: ignore[arg-type]
            # Postgres prints a large one as an integer, with other digits.
            self.intact = self.intact and abs(value) < LARGEST_EXACT_FLOAT  # type: ignore[arg-type]
            return value
        if kind in CONTAINERS or isinstance(value, CONTAINERS):
            return self._container(value, depth)
        self.intact = False
        if isinstance(value, str):
            return self._text(str.__str__(value), self.text_limit)
        return describe(value, self.text_limit)

    def _text(self, text: str, limit: int) -> str:
        cleaned = clean_text(text, limit)
        self._budget -= len(cleaned) // 100
        if cleaned != text:
            self.intact = False
        return cleaned

    def _container(self, value: Any, depth: int) -> Any:  # noqa: ANN401
        if depth >= DEPTH_LIMIT or id(value) in self._open:
            self.intact = False
            reason = "nested too deeply" if depth >= DEPTH_LIMIT else "contains itself"
            return f"<{type(value).__qualname__}: {reason}>"
        self._open.add(id(value))
        try:
            if type(value) not in SEQUENCES and isinstance(value, Mapping):
                return self._mapping(value, depth)
            return self._sequence(value, depth)
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, Any]:
        if type(value) is not dict:
            self.intact = False
        cleaned: dict[str, Any] = {}
        for number, (key, item) in enumerate(value.items()):
            if number == ITEM_LIMIT or self._budget <= 0:
                self.intact = False
                cleaned["…"] = f"({len(value) - number} more)"
                break
            if type(key) is not str:
                self.intact = False
                key = str.__str__(key) if isinstance(key, str) else describe(key, KEY_LIMIT)
            name = self._text(key, KEY_LIMIT)
            if hides(self.hidden_keys, name):
                self.intact = False
                cleaned[name] = MASK
            else:
                cleaned[name] = self.clean(item, depth + 1)
        return cleaned

    def _sequence(self, value: Any, depth: int) -> list[Any]:  # noqa: ANN401
        # Celery hands a task its positional arguments as a tuple or a list; JSON knows only lists.
        if type(value) is not list and not (type(value) is tuple and depth == 0):
            self.intact = False
        cleaned = []
        for number, item in enumerate(value):
            if number == ITEM_LIMIT or self._budget <= 0:
                self.intact = False
                cleaned.append(f"… ({len(value) - number} more)")
                break
            cleaned.append(self.clean(item, depth + 1))
        return cleaned


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """An exception as texts, with those it was raised from in the traceback."""

    type: str
    message: str
    traceback: str

    @property
    def line(self) -> str:
        """The last line of a traceback: type and message."""
        return f"{self.type}: {self.message}" if self.message else self.type

    @classmethod
    def of(cls, error: BaseException, limit: int) -> "ExceptionText":
        """These texts of any exception, whatever its own methods raise."""
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ not in ("builtins", "__main__"):
            name = f"{kind.__module__}.{name}"
        message = _text_of(partial(str, error), "its str()")
        text = _text_of(partial(_traceback, error), "its traceback")
        return cls(clean_text(name, 255), clean_text(message, limit), clean_end(text, limit))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _own_frames(error.__traceback__)))


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without Celery's own first frames, which call the task."""
    own = frames
    while own and own.tb_frame.f_code.co_filename.endswith("celery/app/trace.py"):
        own = own.tb_next
    return own or frames
