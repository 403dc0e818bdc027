"""Any Python value becomes JSON that Postgres stores and every client reads."""

import json
import sys
import tracemalloc
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks.models import TaskRun
from systemtasks.runs.exceptions import printable
from systemtasks.runs.secret_texts import MASK
from systemtasks.runs.values import (
    Cleaner,
    clean_column,
    clean_end,
    clean_text,
    describe,
)
from tests.systemtasks.traps import Colour, Size, Word, armed, trap

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(st.characters(exclude_categories=())),  # NUL and lone surrogates included
    st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.uuids(),
    st.complex_numbers(),
)
anything = st.recursive(
    scalars,
    lambda children: (
        st.lists(children)
        | st.tuples(children, children)
        | st.dictionaries(scalars, children)
        | st.frozensets(scalars)
    ),
    max_leaves=30,
)


def clean(value: object, limit: int = 100) -> tuple[Any, bool]:
    cleaner = Cleaner(limit)
    return cleaner.clean(value), cleaner.intact


@pytest.mark.django_db
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(anything)
def test_any_value_is_stored_as_jsonb_and_read_back(value: object) -> None:
    cleaned, _ = clean(value)

    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb::text", [orjson.dumps(cleaned).decode()])
        (stored,) = cursor.fetchone()
    sent = orjson.dumps(cleaned).decode()
    assert json.loads(stored, parse_float=Decimal, parse_int=Decimal) == json.loads(
        sent, parse_float=Decimal, parse_int=Decimal
    )


@settings(deadline=None)
@given(anything)
def test_intact_means_that_the_very_value_comes_back(value: object) -> None:
    cleaned, intact = clean(value, limit=10**6)

    if intact:
        back = json.loads(orjson.dumps(cleaned))
        assert back == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    "value",
    [
        {"token": "hunter2"},
        [Decimal("1.5")],
        [(1, 2)],
        [float("nan")],
        [2**70],
        ["a\0b"],
        ["\ud800"],
        ["x" * 101],
        [list(range(300))],
        [{1: "key that is no text"}],
        [datetime(2026, 1, 1, tzinfo=UTC)],
    ],
)
def test_changed_values_are_not_intact(value: object) -> None:
    assert clean(value)[1] is False


@pytest.mark.parametrize("key", ["password", "API_KEY", "Authorization", "session_token", "secret"])
def test_values_under_secret_keys_are_masked_at_any_depth(key: str) -> None:
    cleaned, _ = clean([{"deep": {key: "hunter2", "other": 1}}])

    assert cleaned == [{"deep": {key: MASK, "other": 1}}]


def test_cycles_and_depth_are_described() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]

    assert clean(cycle)[0] == [1, "<list: contains itself>"]
    assert "<list: nested too deeply>" in orjson.dumps(clean(deep)[0]).decode()


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = {"a": 1}

    assert clean([shared, shared]) == ([{"a": 1}, {"a": 1}], True)


def test_what_is_left_out_is_counted() -> None:
    assert clean(list(range(201)))[0][-1] == "… (1 more)"
    assert clean({str(n): n for n in range(203)})[0]["…"] == "(3 more)"
    assert clean_text("x" * 103, 100) == "x" * 100 + "… (3 more characters)"
    assert clean_end("ab" + "x" * 100, 100) == "(2 characters before) …" + "x" * 100


def test_a_wide_and_deep_value_is_cut_before_it_costs_much() -> None:
    wide: Any = ["x" * 50] * 200
    for _ in range(5):
        wide = [wide] * 200

    assert len(orjson.dumps(clean(wide)[0])) < 1_000_000


Point = namedtuple("Point", "x y")


class Meta(type):
    """A metaclass that changes the names of its classes."""

    __name__ = property(lambda _: "Other")

    def __getattribute__(cls, name: str) -> Any:
        return "Other" if name == "__qualname__" else super().__getattribute__(name)


class Named(metaclass=Meta):
    pass


def local() -> object:
    class Local:
        pass

    return Local()


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        # Values that JSON has no type for become text.
        (datetime(2026, 1, 1, 12, 30), "2026-01-01T12:30:00"),  # noqa: DTZ001
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")), "2026-07-01T00:00:00+02:00"),
        (time(12, 30), "12:30:00"),
        (time(12, 30, tzinfo=timezone(timedelta(hours=1))), "12:30:00+01:00"),
        (date(2026, 1, 1), "2026-01-01"),
        (timedelta(days=1, seconds=1), "1 day, 0:00:01"),
        (Decimal("1.50"), "1.50"),
        (Decimal("-1E+999999"), "-1E+999999"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/tmp/file"), "/tmp/file"),
        (PureWindowsPath("c:/file"), "c:\\file"),
        (b"abc", "b'abc'"),
        (b"x" * 300, f"b'{'x' * 25}'… (275 more bytes)"),
        (bytearray(b"abc"), "bytearray(b'abc')"),
        (memoryview(b"abc"), "<memoryview of b'abc'>"),
        (memoryview(b"x" * 300), f"<memoryview of b'{'x' * 25}'… (275 more bytes)>"),
        (memoryview(b"x" * 6).cast("B", [2, 3]), "<memoryview of 6 bytes>"),
        (range(3), "range(0, 3)"),
        (range(3, 0, -1), "range(3, 0, -1)"),
        (2**64, "18446744073709551616"),
        (float("-inf"), "-inf"),
        (1 + 2j, "(1+2j)"),
        (..., "Ellipsis"),
        (Named, "<class Named>"),
        # Enumerations, whose values may be computed.
        (Colour.RED, "Colour.RED"),
        (Size.LARGE, "Size.LARGE"),
        (Word.KEY, "word"),
        # Values of subclasses of Python's own types, and values in them.
        (mark_safe("text"), "text"),
        (np.float64(1.5), 1.5),
        (Point(1, 2), [1, 2]),
        (deque([1, 2]), [1, 2]),
        (frozenset([1]), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (KeyError("key"), "KeyError('key')"),
        (ValueError(), "ValueError()"),
        (ValueError("text", [Colour.RED]), "ValueError('text', [Colour.RED])"),
        # NumPy's numbers, which are not Python's own.
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        # For anything else, the name of its type.
        (local(), "<Local>"),
        (Named(), "<Named>"),
        (Fraction(1, 2), "<Fraction>"),
        (iter([1]), "<list_iterator>"),
        ((n for n in [1]), "<generator>"),
        (np.array([1]), "<ndarray>"),
        (gettext_lazy("text"), "<__proxy__>"),
        (SimpleLazyObject(lambda: 1), "<SimpleLazyObject>"),
        (ContentType.objects.all(), "<QuerySet>"),
        (TaskRun(), "<TaskRun>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_is_read_by_pythons_own_means(value: object, cleaned: object) -> None:
    found, _ = clean(value)

    assert (found, type(found)) == (cleaned, type(cleaned))


def test_exception_that_has_itself_in_it_is_described() -> None:
    error = ValueError("text")
    error.args = (error,)

    assert clean(error)[0] == "ValueError(ValueError(<tuple: contains itself>))"


def test_key_that_extends_pythons_text_is_not_cut_before_it_is_known_to_be_secret() -> None:
    key = mark_safe("x" * 200 + "_password")

    assert clean({key: "hunter2"})[0] == {str(key): MASK}


def test_keys_of_one_name_are_kept_apart() -> None:
    things = {local(): 1, local(): 2, 7: 3, "7": 4, (1, Colour): 5}

    assert clean(things)[0] == {
        "<Local>": 1,
        "<Local> (1)": 2,
        "7": 3,
        "7 (3)": 4,
        "(1, <class Colour>)": 5,
    }


def test_container_that_changes_meanwhile_is_described() -> None:
    class Changing(dict[str, object]):
        pass

    things = Changing(a=1, b=2)
    cleaner = Cleaner(100)
    clean_item = cleaner.clean

    def change(value: object, depth: int = 0) -> object:
        if depth == 2:
            things["c"] = 3  # as another thread may
        return clean_item(value, depth)

    cleaner.clean = change  # type: ignore[method-assign]

    assert cleaner.clean([things]) == ["<Changing: changed while it was read>"]


@contextmanager
def counted() -> Iterator[Callable[[], tuple[int, int]]]:
    """Yield the number of functions called in the block, and its peak memory in bytes."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    tracemalloc.start()
    sys.setprofile(count)
    try:
        yield lambda: (calls, tracemalloc.get_traced_memory()[1])
    finally:
        sys.setprofile(None)
        tracemalloc.stop()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def wide(depth: int) -> Any:
    return ["x" * 50] * 200 if depth == 0 else [wide(depth - 1)] * 200


LARGE: dict[str, Callable[[], object]] = {
    "text": lambda: "x" * 50_000_000,
    "text that extends Python's": lambda: mark_safe("x" * 50_000_000),
    "bytes": lambda: bytes(50_000_000),
    "bytearray": lambda: bytearray(50_000_000),
    "memoryview": lambda: memoryview(bytes(50_000_000)),
    "list": lambda: [0] * 1_000_000,
    "tuple": lambda: (0,) * 1_000_000,
    "deque": lambda: deque(range(1_000_000)),
    "dict": lambda: dict.fromkeys(range(300_000)),
    "set": lambda: set(range(300_000)),
    "keys": lambda: {("x" * 1000,) * 300: 1, ("y" * 1000,) * 300: 2},
    "integer": lambda: 1 << 40_000_000,
    "range of integers": lambda: range(1 << 40_000_000),
    "decimal": lambda: Decimal("9" * 1_000_000),
    "path": lambda: PurePosixPath("x" * 10_000_000),
    "nested": lambda: nested(100_000),
    "wide": lambda: wide(5),
    "exception": lambda: ValueError(deque(range(1_000_000))),
    "name": lambda: type("x" * 1_000_000, (), {})(),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_value_takes_no_longer_than_a_small_one(kind: str) -> None:
    value = LARGE[kind]()
    most_digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # as a project may
    try:
        with counted() as count:
            clean(value, 8192)
            describe(value, 8192)
            text = f"{printable(value, 8192)} {printable(value, 8192)!r}"
            calls, size = count()
    finally:
        sys.set_int_max_str_digits(most_digits)

    assert calls < 400_000
    assert size < 10_000_000
    assert len(text) < 2_000_000


OF_HOSTILE_KINDS = {
    base: type(trap(base)) for base in (str, int, float, list, tuple, dict, OrderedDict)
}


def hostile(value: Any) -> Any:
    """Return the value with subclasses of Python's own types that override all they can."""
    kind = OF_HOSTILE_KINDS.get(type(value))
    if kind is None:
        return value
    if isinstance(value, dict):
        return kind((hostile(key), hostile(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return kind(map(hostile, value))
    return kind(value)


@settings(deadline=None)
@given(
    st.recursive(
        scalars,
        lambda children: (
            st.lists(children)
            | st.tuples(children, children)
            | st.dictionaries(st.text(), children).map(OrderedDict)
            | st.dictionaries(st.integers() | st.text(), children)
        ),
        max_leaves=30,
    )
)
def test_what_extends_pythons_own_types_is_read_as_they_are(value: object) -> None:
    given_value = hostile(value)
    with armed():
        cleaned, intact = clean(given_value)

    assert cleaned == clean(value)[0]
    assert not intact or given_value is value


def test_column_text_fits_its_column_and_is_storable() -> None:
    assert clean_column("\ud800\0" + "x" * 300, 255) == "��" + "x" * 253
