"""Objects that note each access to them, and end the task that makes it."""

from collections import OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from django.utils.functional import SimpleLazyObject, lazy

asked: list[str] = []
"""The accesses to traps while they were armed."""
_armed = False

OPERATORS = ("add", "sub", "mul", "mod", "truediv", "floordiv", "and", "or", "xor", "pow")
SPECIAL = (
    *("repr", "str", "bytes", "format", "hash", "bool", "len", "length_hint", "sizeof"),
    *("lt", "le", "eq", "ne", "gt", "ge", "getattribute", "dir", "reduce", "reduce_ex"),
    *("getitem", "iter", "next", "reversed", "contains", "call", "fspath", "buffer"),
    *("int", "float", "complex", "index", "round", "trunc", "abs", "neg", "pos", "invert"),
    *(f"{side}{name}" for side in ("", "r") for name in OPERATORS),
)
"""The methods that a class of traps overrides. `__getattribute__` gets all other names."""
OF_A_METACLASS = ("repr", "hash", "eq", "ne", "getattribute", "instancecheck", "subclasscheck")


@contextmanager
def armed() -> Iterator[None]:
    """Make traps raise SystemExit at each access, until the block ends."""
    global _armed
    asked.clear()
    _armed = True
    try:
        yield
    finally:
        _armed = False


def ask(what: str) -> None:
    """Note an access to a trap."""
    if _armed:
        asked.append(what)
        raise SystemExit(what)


def _method(base: type, name: str) -> Callable[..., Any]:
    def method(self: object, *args: Any, **kwargs: Any) -> Any:
        ask(f"{base.__name__}.{name}")
        return getattr(base, name, lambda *_: NotImplemented)(self, *args, **kwargs)

    return method


def _methods(base: type, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _method(base, name) for name in (f"__{name}__" for name in names)}


def _bool(_: object) -> bool:
    ask("bool")
    return True


def trap(base: type, *args: Any) -> Any:
    """Return an instance of a subclass of this class that overrides all it can."""
    # An abstract class asks its subclasses if another class is a subclass of theirs.
    asking = OF_A_METACLASS if type(base) is type else ()
    meta = type("Meta", (type(base),), _methods(type(base), asking))
    methods = {**_methods(base, SPECIAL), "__bool__": _bool}
    return meta(f"Trap{base.__name__.title()}", (base,), methods)(*args)


class Empty(Mapping[str, object]):
    """A mapping of its own, as projects have them."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        return iter(())


def _asking() -> str:
    ask("evaluation")
    return "evaluated"


def _generator() -> Iterator[str]:
    yield _asking()


class Colour(Enum):
    """An enumeration whose members' values are computed."""

    RED = 1

    @property
    def value(self) -> int:
        return len(_asking())

    def __repr__(self) -> str:
        return _asking()

    __str__ = __repr__

    def __hash__(self) -> int:
        return len(_asking())

    def __eq__(self, other: object) -> bool:
        return bool(_asking())


class Word(StrEnum):
    KEY = "word"


class Size(IntEnum):
    LARGE = 3


class Slots:
    __slots__ = ("value",)


def all_traps() -> dict[str, Any]:
    """Return a trap of each kind, and Python's own types with a trap in them, by name."""
    plain = trap(object)
    alone = {
        "object": plain,
        "class": type(plain),
        "str": trap(str, "text"),
        "bytes": trap(bytes, b"bytes"),
        "bytearray": trap(bytearray, b"bytes"),
        "int": trap(int, 7),
        "float": trap(float, 1.5),
        "complex": trap(complex, 1.5),
        "decimal": trap(Decimal, "1.5"),
        "fraction": trap(Fraction, 1, 2),
        "list": trap(list, [1]),
        "tuple": trap(tuple, (1,)),
        "set": trap(set, {1}),
        "frozenset": trap(frozenset, {1}),
        "deque": trap(deque, [1]),
        "dict": trap(dict, {"key": 1}),
        "ordered dict": trap(OrderedDict, {"key": 1}),
        "default dict": trap(defaultdict, None, {"key": 1}),
        "user dict": trap(UserDict, {"key": 1}),
        "mapping": trap(Empty),
        "date": trap(date, 2026, 1, 1),
        "datetime": trap(datetime, 2026, 1, 1),
        "time": trap(time, 12),
        "timedelta": trap(timedelta, 1),
        "uuid": trap(UUID, str(UUID(int=1))),
        "path": trap(PurePosixPath, "path"),
        "exception": trap(ValueError, "message"),
        "exit": trap(SystemExit, 3),
        "exception group": trap(ExceptionGroup, "message", [ValueError(1)]),
        "lazy object": SimpleLazyObject(_asking),
        "lazy text": lazy(_asking, str)(),
        "generator": _generator(),
        "enum": Colour.RED,
    }
    inside = {
        "text of a path": PurePosixPath(trap(str, "path")),
        "zone of a datetime": datetime(2026, 1, 1, tzinfo=trap(tzinfo)),
        "zone of a time": time(12, tzinfo=trap(tzinfo)),
        "offset of a zone": datetime(2026, 1, 1, tzinfo=timezone(trap(timedelta, 0), "name")),
        "name of a zone": datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), trap(str, "name"))),
        "item of a list": [plain],
        "item of a tuple": (plain,),
        "item of a set": {plain},
        "item of a deque": deque([plain]),
        "value of a dict": {"key": plain},
        "key of a dict": {plain: 1},
        "text that is a key": {trap(str, "key"): 1},
        "argument of an exception": ValueError(plain),
        "arguments of an exception": ValueError(plain, plain),
        "missing key": KeyError(plain),
        "file of an error": OSError(2, "No such file", trap(str, "name")),
        "error of an error": OSError(trap(int, 2), trap(str, "No such file")),
        "part of a syntax error": SyntaxError(trap(str, "no"), (plain, 1, 1, plain)),
        "module of an error": ImportError(plain, name=plain, path=plain),
        "object of an error": AttributeError("no such attribute", name="id", obj=plain),
        "encoding": UnicodeDecodeError(trap(str, "utf-8"), b"\xff", 0, 1, trap(str, "reason")),
        "note": _with_notes(plain, trap(str, "note")),
        "cause": _raised_from(trap(ValueError, plain)),
        "exception of a group": ExceptionGroup("group", [trap(ValueError, plain)]),
        "message of a group": ExceptionGroup(trap(str, "group"), [ValueError(1)]),
        "partial": SimpleLazyObject,
        "moment in UTC": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return {**alone, **inside}


def _with_notes(*notes: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = list(notes)
    return error


def _raised_from(cause: BaseException) -> BaseException:
    error = ValueError("raised")
    error.__cause__ = cause
    return error
