"""Any Python value becomes JSON that Postgres stores and every client reads."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks.conf import Conf
from systemtasks.runs.values import (
    MASK,
    Cleaner,
    ExceptionText,
    clean_column,
    clean_end,
    clean_text,
    describe,
)

HIDDEN = Conf().HIDDEN_KEYS

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


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")


def clean(value: object, limit: int = 100) -> tuple[Any, bool]:
    cleaner = Cleaner(limit, HIDDEN)
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


def test_hostile_objects_are_described_by_their_type() -> None:
    assert clean(Hostile())[0] == "<Hostile whose repr raises RuntimeError>"


def test_column_text_fits_its_column_and_is_storable() -> None:
    assert clean_column("\ud800\0" + "x" * 300, 255) == "��" + "x" * 253


class StrRaisesError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


def raised(raise_it: Callable[[], None]) -> BaseException:
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_exception_text_has_type_message_and_chained_traceback() -> None:
    def chained() -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    text = ExceptionText.of(raised(chained), 5000)

    assert (text.type, text.message) == ("ValueError", "outer")
    assert text.line == "ValueError: outer"
    assert "KeyError: 'inner'" in text.traceback
    assert "direct cause" in text.traceback
    assert text.traceback.endswith("ValueError: outer\n")


def test_exception_without_a_message_is_its_type() -> None:
    assert ExceptionText.of(ValueError(), 100).line == "ValueError"


def test_exception_whose_str_raises_is_described() -> None:
    text = ExceptionText.of(StrRaisesError(), 1000)

    assert text.message == "<its str() raises RuntimeError>"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_exception_message_is_storable(message: str) -> None:
    text = ExceptionText.of(ValueError(message), 50)

    assert "\0" not in text.message + text.traceback
    (text.message + text.traceback).encode()


def test_soft_time_limit_that_comes_meanwhile_reaches_the_task() -> None:
    class SlowError(Exception):
        def __repr__(self) -> str:
            raise SoftTimeLimitExceeded

        __str__ = __repr__

    for look in (
        lambda: Cleaner(100, HIDDEN).clean({"thing": SlowError()}),
        lambda: describe(SlowError(), 100),
        lambda: ExceptionText.of(SlowError(), 100),
    ):
        with pytest.raises(SoftTimeLimitExceeded):
            look()
