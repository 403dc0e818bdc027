"""A run's arguments are kept as JSON, with a flag if they are unchanged."""

import json
from collections import OrderedDict, UserDict, deque
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from pytest_django import Settings

from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.records import TaskInfo

INFO = TaskInfo(name="shop.charge")


@pytest.mark.parametrize(
    ("args", "kwargs", "kept"),
    [
        ((), {}, ("[]", "{}")),
        ((1, "two", True, None), {}, ('[1,"two",true,null]', "{}")),
        ([2**63 - 1, -(2**63) + 1], {}, (f"[{2**63 - 1},{-(2**63) + 1}]", "{}")),
        ((1, "two"), {"three": [3]}, ('[1,"two"]', '{"three":[3]}')),
        (("\\u0000",), {}, ('["\\\\u0000"]', "{}")),
        (("ünïcödé \N{PILE OF POO}",), {}, ('["ünïcödé \N{PILE OF POO}"]', "{}")),
        ((1.5,), {}, ("[1.5]", "{}")),
    ],
)
def test_arguments_are_kept_and_intact(args: Any, kwargs: Any, kept: tuple[str, str]) -> None:
    found = clean_arguments(INFO, args, kwargs)

    assert (found.args, found.kwargs, found.intact) == (*kept, True)


class Size(IntEnum):
    """An enumeration that JSON would take for a number."""

    LARGE = 3


class UserId(UUID):
    """A UUID of which a message would make an ordinary one."""


class Summer(tzinfo):
    """A project's own time zone, whose code is not run."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        raise AssertionError("its code was run")

    dst = tzname = utcoffset  # type: ignore[assignment]


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {3},
        {b"bytes": 1},
        Size.LARGE,
        UserId(int=1),
        timedelta(1),
        bytearray(b"bytes"),
        datetime(2026, 7, 1, tzinfo=Summer()),
        time(12, tzinfo=ZoneInfo("Europe/Berlin")),
        2**5000,
        b"x" * 5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_argument_that_no_message_of_json_carries_as_it_is_is_not_intact(value: object) -> None:
    found = clean_arguments(INFO, (value, UUID(int=1)), {})

    assert len(json.loads(found.args or "")) == 2
    assert (found.intact, found.types) == (False, None)


@pytest.mark.parametrize(
    ("value", "shown", "types"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001", ["uuid"]),
        (datetime(2026, 7, 1, 12, tzinfo=UTC), "2026-07-01T12:00:00+00:00", ["datetime"]),
        (date(2026, 7, 1), "2026-07-01", ["date"]),
        (time(12, 30), "12:30:00", ["time"]),
        (Decimal("1.50"), "1.50", ["decimal"]),
        (b"a\xff", r"b'a\xff'", ["bytes"]),
        (2**70, "1180591620717411303424", ["json", "1180591620717411303424"]),
        (2**63, "9223372036854775808", ["json", "9223372036854775808"]),
        (1e300, 1e300, ["json", "1e+300"]),
        (-0.0, -0.0, ["json", "-0.0"]),
        (float("nan"), "nan", ["json", "NaN"]),
        (float("-inf"), "-inf", ["json", "-Infinity"]),
        ("a\0b", "a\ufffdb", ["json", r'"a\u0000b"']),
        ("\ud800", "\ufffd", ["json", r'"\ud800"']),
    ],
    ids=repr,
)
def test_value_that_json_or_postgres_does_not_have_is_readable_and_keeps_its_type(
    value: object, shown: object, types: list[str]
) -> None:
    found = clean_arguments(INFO, ([1, {"deep": value}],), {"at": value})

    assert found.intact
    assert json.loads(found.args or "") == [[1, {"deep": shown}]]
    assert json.loads(found.kwargs or "") == {"at": shown}
    assert json.loads(found.types or "") == [
        [["args", 0, 1, "deep"], *types],
        [["kwargs", "at"], *types],
    ]


def test_types_of_plain_arguments_and_of_masked_ones_are_not_kept() -> None:
    assert clean_arguments(INFO, (1, ["two", 3.5]), {"a": {}}).types is None
    found = clean_arguments(INFO, (UUID(int=1),), {"token": UUID(int=2)})

    assert (found.kwargs, found.intact, found.types) == ('{"token":"********"}', False, None)


def test_types_count_towards_the_limit_and_leave_the_arguments_readable(
    settings: Settings,
) -> None:
    settings.SYSTEMTASKS = {"ARGUMENTS_LIMIT": 200}
    few, many = ([UUID(int=1)] * number for number in (3, 4))

    assert clean_arguments(INFO, few, {}).intact
    found = clean_arguments(INFO, many, {})
    assert json.loads(found.args or "") == [str(UUID(int=1))] * 4
    assert (found.intact, found.types) == (False, None)


def test_bytes_that_are_json_are_masked_as_text_is() -> None:
    secret = b'{"password": "hunter2", "page": 1}'
    found = clean_arguments(INFO, (secret, secret.decode()), {})

    assert "hunter2" not in (found.args or "")
    assert (found.intact, found.types) == (False, None)


@pytest.mark.parametrize(
    ("args", "kwargs", "kept"),
    [
        (iter([1]), {}, ('["<list_iterator>"]', "{}")),
        (deque([1, 2]), {}, ("[1,2]", "{}")),
        ((), UserDict(a=1), ("[]", '{"…":"<UserDict>"}')),
        ((), OrderedDict(a=1), ("[]", '{"a":1}')),
        ((), None, ("[]", "{}")),
    ],
)
def test_arguments_are_an_array_and_an_object_whatever_they_are(
    args: Any, kwargs: Any, kept: tuple[str, str]
) -> None:
    found = clean_arguments(INFO, args, kwargs)

    assert (found.args, found.kwargs) == kept
    assert not found.intact


@pytest.mark.parametrize("number", [1000, 8193, 1_000_000])
def test_only_arguments_that_may_fit_are_read(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dumped: list[int] = []
    dumps = orjson.dumps

    def count(value: Any, **options: Any) -> bytes:
        dumped.append(len(value))
        return dumps(value, **options)

    monkeypatch.setattr(orjson, "dumps", count)
    found = clean_arguments(INFO, [7] * number, {})

    assert found.intact == (number == 1000)
    assert max(dumped) <= 1000


def test_secret_arguments_are_masked_and_not_intact() -> None:
    found = clean_arguments(INFO, [], {"password": "hunter2"})

    assert (found.kwargs, found.intact) == ('{"password":"********"}', False)


def test_secret_position_is_masked_and_not_intact() -> None:
    found = clean_arguments(TaskInfo("shop.pay", masked_positions=(1,)), ["a", "hunter2"], {})

    assert (found.args, found.intact) == ('["a","********"]', False)


def test_long_text_is_cut_and_the_other_arguments_are_kept() -> None:
    found = clean_arguments(INFO, ["x" * 20_000, "shop"], {"password": "hunter2", "page": 7})

    assert json.loads(found.args or "") == ["x" * 4096 + "… (15904 more characters)", "shop"]
    assert json.loads(found.kwargs or "") == {"password": "********", "page": 7}
    assert not found.intact


def test_several_long_texts_are_cut_shorter() -> None:
    found = clean_arguments(INFO, ["x" * 20_000] * 10, {})

    assert json.loads(found.args or "") == ["x" * 512 + "… (19488 more characters)"] * 10


def test_text_of_nearly_all_that_is_kept_is_intact() -> None:
    found = clean_arguments(INFO, ["x" * 10_000], {"page": 7})

    assert found.intact


def test_masked_position_stays_masked_where_others_are_cut() -> None:
    found = clean_arguments(
        TaskInfo("shop.pay", masked_positions=(1,)), ["x" * 20_000, "hunter2"], {}
    )

    assert "hunter2" not in (found.args or "")


def test_name_is_not_cut_before_it_is_known_to_be_secret(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"ARGUMENTS_LIMIT": 150}
    name = "what_the_customer_calls_their_own_password"
    info = TaskInfo("shop.pay", masked=frozenset([name.replace("password", "pin")]))
    for hidden in (name, *info.masked):
        found = clean_arguments(info, ["x" * 200], {hidden: "hunter2"})

        assert json.loads(found.kwargs or "") == {hidden: "********"}
        assert "more characters" in (found.args or "")


def test_large_arguments_are_left_out(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"ARGUMENTS_LIMIT": 100}
    found = clean_arguments(INFO, [*range(100)], {"page": 7})

    assert json.loads(found.args or "") == ["(left out: these arguments take more than 100 bytes)"]
    assert (found.kwargs, found.intact) == ("{}", False)


def test_arguments_can_be_left_out(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"RECORD_ARGUMENTS": False}
    found = clean_arguments(INFO, [1], {})

    assert (found.args, found.kwargs, found.intact) == (None, None, False)
