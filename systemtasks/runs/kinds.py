"""Inspect and print values without running code of their own.

`isinstance` reads a value's `__class__`, which may be a property that does anything. A set or a
dictionary calls a type's metaclass for its hash. Therefore types are compared by `is` and
`issubclass`, and values are read by the methods of Python's own types.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import EllipsisType, NotImplementedType
from typing import Any, TypeGuard, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

T = TypeVar("T")

NAME_LIMIT = 255  # characters of a type's name
LARGEST_INTEGER = 2**63 - 1
BITS_LIMIT = 4096
"""The maximum size, in bits, of an integer that is printed. The time is quadratic."""
DECIMAL_SIZE = 1024  # bytes that a Decimal takes in memory, nearly all of them its digits
EXPONENT_LIMIT = 1000

_qualified_name: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_module: Callable[[type], object] = type.__dict__["__module__"].__get__

_classes: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_names: Callable[[type], Any] = type.__dict__["__dict__"].__get__

_IS_HEAP_TYPE = 1 << 9
_NUMPY_NUMBERS = frozenset(
    (
        "bool",
        "bool_",
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "longlong",
        "ulonglong",
    )
)


def is_of(value: object, base: type[T]) -> TypeGuard[T]:
    """Return True if the value's own type is this one, or extends it.

    `base` must have no metaclass that overrides `__subclasscheck__`.
    """
    return issubclass(type(value), base)


def type_name(kind: type) -> str:
    """Return the name of a type without asking its metaclass."""
    name = str.__str__(_qualified_name(kind))
    return name.rpartition("<locals>.")[2][:NAME_LIMIT]


def full_name(kind: type) -> str:
    """Return the name of a type with its module, as in a traceback."""
    name, module = str.__str__(_qualified_name(kind)), _module(kind)
    if type(module) is str and module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    return name[: 4 * NAME_LIMIT]


def field_names(kind: type) -> tuple[str, ...]:
    """Return the names of the items of a named tuple's class, or () for any other class."""
    if kind is tuple:
        return ()
    for one in _classes(kind):
        if type(names := _names(one).get("_fields")) is tuple:
            return names if all(type(name) is str for name in names) else ()
    return ()


def is_plain(value: object, limit: int) -> bool:
    """Return True if the value is a short text, bytes, a number, a boolean or None.

    Its type must be Python's own, so not a subclass. A text has at most `limit` characters, and
    bytes are at most `limit`. Printing such a value takes almost no time.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= limit  # type: ignore[arg-type]
    if kind is int:
        return -LARGEST_INTEGER <= value <= LARGEST_INTEGER  # type: ignore[operator]
    return value is None or kind is float or kind is bool


def is_enum(value: object) -> bool:
    """Return True for a member of an enumeration."""
    return type.__subclasscheck__(Enum, type(value))


def built_in_number(value: object) -> int | float | None:
    """Convert an int, float or NumPy number to Python's own type. Return None for others."""
    if is_of(value, int):
        return int.__int__(value)
    if is_of(value, float):
        return float.__float__(value)
    if _is_of_numpy(type(value)):
        number: int | float = value.item()  # type: ignore[attr-defined]
        return number
    return None


def number(value: object) -> int | float:
    """Return the number as Python's own int or float. Raise TypeError for any other value."""
    own = built_in_number(value)
    if own is None and type(value) is Decimal and _is_small(value) and not value.is_snan():
        own = float(value)
    if own is None:
        raise TypeError(f"not a number, but <{type_name(type(value))}>")
    return own


def scalar_text(value: object, limit: int) -> str | None:
    """Return the text, of about `limit` characters, of a value that contains no other values.

    Return None if it is of another kind, or cannot be printed without running its own code.
    """
    kind = type(value)
    if is_of(value, str):
        return str.__getitem__(value, slice(limit))
    if is_enum(value):
        name = object.__getattribute__(value, "_name_")
        return f"{type_name(kind)}.{name}" if type(name) is str else None
    if is_of(value, type):
        return f"<class {type_name(value)}>"
    for known, text in _TEXTS:
        if kind is known:
            return text(value, limit)
    if (own := built_in_number(value)) is not None:
        return scalar_text(own, limit)
    return None


def is_printable(value: object) -> bool:
    """Return True if formatting the value is safe and fast in any format."""
    kind = type(value)
    if kind is int:
        return value.bit_length() <= BITS_LIMIT  # type: ignore[attr-defined, no-any-return]
    if kind is Decimal:
        return _is_small(value) and abs(value.adjusted()) < EXPONENT_LIMIT  # type: ignore[attr-defined, arg-type]
    if kind is datetime or kind is time:
        zone = value.tzinfo  # type: ignore[attr-defined]
        return zone is None or zone is UTC
    return kind is date or kind is timedelta or kind is complex


def _integer_text(value: int, limit: int = 0) -> str:
    bits = value.bit_length()
    return str(value) if bits <= BITS_LIMIT else f"<int of {bits} bits>"


def _bytes_text(value: bytes | bytearray, limit: int) -> str:
    shown = limit // 4  # each may take four characters
    text = repr(value[:shown])
    return text if len(value) <= shown else f"{text}… ({len(value) - shown} more bytes)"


def _memory_text(value: memoryview, limit: int) -> str | None:
    try:
        size = value.nbytes
    except ValueError:  # it has been released
        return None
    if value.ndim != 1:
        return f"<memoryview of {size} bytes>"
    start = value[: limit // 4 // value.itemsize].tobytes()
    more = f"… ({size - len(start)} more bytes)" if size > len(start) else ""
    return f"<memoryview of {start!r}{more}>"


def _is_small(value: Decimal) -> bool:
    return value.__sizeof__() <= DECIMAL_SIZE


def _decimal_text(value: Decimal, limit: int) -> str | None:
    return str(value) if _is_small(value) else None


def knows_its_offset(zone: object) -> bool:
    """Return True for None or a time zone whose class is Python's own."""
    kind = type(zone)
    return zone is None or kind is timezone or kind is ZoneInfo


def _datetime_text(value: datetime, limit: int) -> str:
    zone = value.tzinfo
    if knows_its_offset(zone):
        return value.isoformat()
    return f"{value.replace(tzinfo=None).isoformat()} <{type_name(type(zone))}>"


def _time_text(value: time, limit: int) -> str:
    zone = value.tzinfo
    if knows_its_offset(zone):
        return value.isoformat()
    return f"{value.replace(tzinfo=None).isoformat()} <{type_name(type(zone))}>"


def _uuid_text(value: UUID, limit: int) -> str | None:
    return str(value) if type(value.int) is int else None


def _path_text(value: Any, limit: int) -> str | None:  # noqa: ANN401 - four types
    # From Python 3.12 on, a path joins its pieces only when it is printed.
    pieces: list[Any] = getattr(value, "_raw_paths", None) or getattr(value, "_parts", [])
    if any(type(piece) is not str for piece in pieces) or sum(map(len, pieces)) > limit:
        return None
    return str(value)


def _range_text(value: range, limit: int) -> str:
    ends = (value.start, value.stop) if value.step == 1 else (value.start, value.stop, value.step)
    return f"range({', '.join(map(_integer_text, ends))})"


def _own_repr(value: object, limit: int) -> str:
    return repr(value)


_TEXTS: tuple[tuple[type, Callable[[Any, int], str | None]], ...] = (
    (datetime, _datetime_text),
    (Decimal, _decimal_text),
    (UUID, _uuid_text),
    (date, lambda value, _: value.isoformat()),
    (time, _time_text),
    (timedelta, lambda value, _: str(value)),
    (bytes, _bytes_text),
    (bytearray, _bytes_text),
    (memoryview, _memory_text),
    (PosixPath, _path_text),
    (PurePosixPath, _path_text),
    (WindowsPath, _path_text),
    (PureWindowsPath, _path_text),
    (range, _range_text),
    (int, _integer_text),
    (float, _own_repr),
    (complex, _own_repr),
    (bool, _own_repr),
    (EllipsisType, _own_repr),
    (NotImplementedType, _own_repr),
    (type(None), _own_repr),
)


def _is_of_numpy(kind: type) -> bool:
    """Return True for NumPy's number types. No class written in Python passes for one."""
    if _flags(kind) & _IS_HEAP_TYPE or _module(kind) != "numpy":
        return False
    return type_name(kind) in _NUMPY_NUMBERS
