"""Arguments and headers of types that JSON does not have are run again as they were."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from config.celery import app
from systemtasks.capture.celery import registered_types
from systemtasks.models import TaskRun
from systemtasks.rerun import NotRerunnableError, Sent, _arguments, _options, rerun_run
from systemtasks.runs import recorder
from systemtasks.runs.arguments import clean_arguments
from systemtasks.runs.journal_line import SENT_HEADER
from systemtasks.runs.records import RunRecord, TaskInfo
from systemtasks.runs.sent_options import CONTENT_TYPE
from tests.systemtasks.runs.test_recorder import LEASE
from tests.workers import Worker, outcome

kombu_json: Any = import_module("kombu.utils.json")
INFO = TaskInfo(name="shop.charge")
JSON = "application/json"


@dataclass
class Money:
    """A type that a project adds to kombu's registry."""

    amount: Decimal
    currency: str


@contextmanager
def registered(
    kind: type,
    marker: str | None,
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any] = lambda value: value,
) -> Iterator[None]:
    """Add this type to kombu's registry for the block. It has no public way to remove one."""
    kombu_json.register_type(kind, marker, encode, decode)
    try:
        yield
    finally:
        del kombu_json._encoders[kind]
        kombu_json._decoders.pop(marker, None)


money = partial(registered, Money, "money", vars, lambda fields: Money(**fields))


def same(value: Any) -> Any:
    """Return what two values of the same contents and types have in common."""
    if type(value) in (list, tuple):
        return [same(item) for item in value]
    if type(value) is dict:
        return {name: same(item) for name, item in value.items()}
    return type(value), repr(value)


def received(args: Any, kwargs: Any, serializer: str = "json") -> tuple[Any, Any]:
    """Return the arguments that a worker gets with a message of these."""
    content_type, encoding, body = dumps((args, kwargs, {}), serializer)
    args, kwargs, _ = loads(body, content_type, encoding, accept=[content_type])
    return args, kwargs


def stored(record: RunRecord) -> TaskRun:
    """Return a row of this record, with its JSON as Postgres gives it back."""
    columns = (record.args, record.kwargs, record.sent_options)
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb::text, %s::jsonb::text, %s::jsonb::text", columns)
        args, kwargs, options = map(orjson.loads, cursor.fetchone())
    return TaskRun(
        args=args,
        kwargs=kwargs,
        sent_options=options,
        arguments_intact=record.arguments_intact,
        start_timestamp=record.start_timestamp,
    )


def queued(args: Any, kwargs: Any, **request: Any) -> TaskRun:
    """Return the row of a run that has been sent."""
    arguments = clean_arguments(INFO, args, kwargs)
    return stored(recorder.queued(INFO, {"id": "id-1", **request}, arguments).record())


def started(args: Any, kwargs: Any, **request: Any) -> TaskRun:
    """Return the row of a run that has started."""
    arguments = clean_arguments(INFO, args, kwargs)
    run = recorder.Run(INFO, {"id": "id-1", **request}, arguments, LEASE)
    return stored(run.in_progress().record())


def sent_again(run: TaskRun, serializer: str = "json") -> tuple[Any, Any]:
    """Return the arguments that are sent if it is run again."""
    assert run.arguments_intact
    return _arguments(Sent.by_run(INFO.name, run, "this run"), serializer)


offsets = st.builds(
    timezone, st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23))
)
texts = st.text(st.characters(exclude_categories=()), max_size=20)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**200), 2**200),
        st.floats(),
        texts,
        st.uuids(),
        st.datetimes() | st.datetimes(timezones=offsets | st.timezones()),
        st.dates(),
        st.times() | st.times(timezones=offsets),
        st.decimals(allow_nan=True),
        st.binary(max_size=50),
        st.builds(
            Money, st.decimals(allow_nan=False), st.sampled_from(["EUR", "a\0b", "__type__"])
        ),
    ),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text("abc"), children),
    max_leaves=20,
)


@pytest.mark.django_db
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
@given(st.lists(values, max_size=4), st.dictionaries(st.sampled_from(["a", "to", "ü"]), values))
@example([{"__type__": "uuid", "__value__": {"hex": "0" * 32}}], {})
@example([[{"__type__": "decimal", "__value__": "1"}]], {"a": {"__type__": 1}})
def test_run_again_sends_the_same_values_as_the_message(args: Any, kwargs: Any) -> None:
    with money():
        expected = received(args, kwargs)
        for run in (queued(args, kwargs, sent=True), started(*expected)):
            again = received(*sent_again(run))
            assert same(again) == same(expected)


@pytest.mark.django_db
def test_queued_and_started_run_show_the_same() -> None:
    args = [UUID(int=1), date(2026, 7, 1), b"a", 2**70, "a\0", Money(Decimal(1), "")]
    with money():
        rows = [queued(args, {}), started(*received(args, {}))]
    assert rows[0].args == rows[1].args
    assert rows[0].sent_options == rows[1].sent_options
    assert rows[0].args is not None
    assert rows[0].args[0] == "00000000-0000-0000-0000-000000000001"
    assert rows[0].args[-1] == {"amount": "1", "currency": ""}


@pytest.mark.django_db
@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_other_serializers_carry_their_own_types(serializer: str) -> None:
    args = [UUID(int=1), Decimal("1.5"), time(12)] if serializer == "pickle" else []
    args += [date(2026, 7, 1), datetime(2026, 7, 1, tzinfo=UTC), b"a\xff", {"deep": [2**70]}]
    args += [{"__type__": "uuid", "__value__": {"hex": "0" * 32}}]
    expected = received(args, {}, serializer)
    run = started(*expected, **{CONTENT_TYPE: "application/x-python-serialize"})
    assert same(received(*sent_again(run, serializer), serializer)) == same(expected)


@pytest.mark.django_db
def test_dictionary_that_a_worker_would_read_as_another_type_is_not_sent_as_json() -> None:
    look_alike = {"a": [{"__type__": "uuid", "__value__": {"hex": "0" * 32}}]}
    run = started([look_alike], {})  # as in eager mode
    assert run.args == [look_alike]
    with pytest.raises(NotRerunnableError, match="keys __type__ and __value__"):
        sent_again(run)
    assert sent_again(run, "pickle") == ([look_alike], {})


@pytest.mark.django_db
def test_value_of_a_type_that_only_the_project_knows_is_sent_as_it_was() -> None:
    with money():
        run = started([Money(Decimal("1.5"), "EUR")], {})
        body = dumps(([Money(Decimal("1.5"), "EUR")], {}), "json")[-1]
    assert json.loads(dumps(sent_again(run), "json")[-1]) == json.loads(body)
    with pytest.raises(NotRerunnableError, match="type of an argument is not known here"):
        sent_again(run, "pickle")


@pytest.mark.django_db
def test_value_that_is_encoded_without_a_type_is_sent_again_once_it_has_arrived() -> None:
    with registered(Money, None, vars):
        args = [Money(Decimal(1), "EUR")]
        run, arrived = queued(args, {}), started(*received(args, {}))
    assert run.args == arrived.args == [{"amount": "1", "currency": "EUR"}]
    assert (run.arguments_intact, arrived.arguments_intact) == (False, True)
    assert sent_again(arrived) == ([{"amount": Decimal(1), "currency": "EUR"}], {})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "secret",
    [
        {"password": "hunter2"},
        {"note": '{"password": "hunter2"}'},
        {"note": "postgres://bob:hunter2@db"},
        {"name": "password", "value": "hunter2"},
    ],
    ids=repr,
)
def test_secrets_in_a_value_of_a_projects_own_type_are_masked(secret: dict[str, Any]) -> None:
    with registered(Money, "money", lambda _: secret):
        run = queued([Money(Decimal(1), "EUR")], {})
    assert "hunter2" not in json.dumps([run.args, run.sent_options])
    assert not run.arguments_intact


@pytest.mark.django_db
@pytest.mark.parametrize("secret", [b"password=hunter2\xff", "password=hunter2\0"])
def test_secrets_in_a_text_that_json_does_not_have_are_masked(secret: object) -> None:
    run = queued([secret], {})
    assert "hunter2" not in json.dumps([run.args, run.sent_options])
    assert not run.arguments_intact


def raising(_: object) -> Any:
    raise RuntimeError("not today")


@pytest.mark.django_db
@pytest.mark.parametrize("encode", [raising, lambda money: money, lambda _: {"page": "x" * 20_000}])
def test_value_whose_encoding_fails_or_is_too_large_is_named_by_its_type(
    encode: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registered_types, "_large", [])
    with registered(Money, "money", encode):
        run = queued([Money(Decimal(1), "EUR"), "shop"], {})
    assert (run.args, run.arguments_intact) == (["<Money>", "shop"], False)


def test_large_value_of_a_type_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered_types, "_large", [])
    encoded: list[object] = []

    def encode(value: object) -> str:
        encoded.append(value)
        return "x" * 20_000

    with registered(Money, "money", encode):
        for _ in range(3):
            clean_arguments(INFO, [Money(Decimal(1), "EUR")], {})
    assert len(encoded) == 1


class Strange(Money):
    """A subclass of a registered type, whose code is not run."""

    def __json__(self) -> str:
        raise AssertionError("its code was run")

    __class__ = property(lambda self: self.__json__())


def test_code_of_an_object_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with money():
        found = clean_arguments(INFO, [Strange(Decimal(1), "EUR")], {})
    assert (found.args, found.intact) == ('["<Strange>"]', False)


HEADERS = {
    "tenant": UUID(int=1),
    "trace": {"at": datetime(2026, 7, 1, tzinfo=UTC), "ids": [b"\xff", 2**70]},
    "locale": "de",
}


@pytest.mark.django_db
def test_headers_keep_their_types() -> None:
    for run in (queued([], {}, **HEADERS), started([], {}, headers=HEADERS)):
        options = _options(Sent.by_run(INFO.name, run, "this run"))
        assert same(options["headers"]) == same(HEADERS)


@pytest.mark.django_db
@pytest.mark.parametrize("secret", [b"Bearer 0123456789abcdef0123456789abcdef", "password=abc12\0"])
def test_header_of_a_type_of_its_own_with_a_secret_is_missing(secret: object) -> None:
    run = queued([], {}, credentials=secret, tenant=UUID(int=1), **{SENT_HEADER: 1.0})
    assert run.sent_options == {
        "headers": {"tenant": str(UUID(int=1))},
        "header_types": [[["tenant"], "uuid"]],
        "missing": ["the header 'credentials'"],
    }


def test_kombu_has_its_registry_where_it_is_looked_for() -> None:
    assert kombu_json._encoders.keys() >= {UUID, datetime, date, time, Decimal}
    with money():
        text = registered_types.encode(Money(Decimal(1), "EUR"))
    assert json.loads(text or "") == {
        "__type__": "money",
        "__value__": {"amount": {"__type__": "decimal", "__value__": "1"}, "currency": "EUR"},
    }


def options_of(run: TaskRun) -> dict[str, Any]:
    """Return the options of a run. Postgres does not keep the order of keyword arguments."""
    options = run.sent_options or {}
    return {**options, "types": sorted(options["types"], key=str)}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_worker_gets_the_same_values_again(tmp_path: Path, pool: str) -> None:
    kept = tmp_path / "kept"
    args = [str(kept), UUID(int=1), {"deep": [date(2026, 7, 1), b"a\xff", 2**70, float("inf")]}]
    kwargs = {"at": datetime(2026, 7, 1, tzinfo=UTC), "price": Decimal("1.50"), "text": "a\0b"}

    def got() -> str:
        lines = kept.read_text()
        kept.unlink()
        return lines

    with Worker(tmp_path / "log", "--pool", pool) as worker:
        sent = app.send_task("tests.keep", args=args, kwargs=kwargs, headers=HEADERS)
        run = outcome(worker, sent.id)
        first = got()
        assert "UUID('00000000-0000-0000-0000-000000000001')" in first
        assert run.args == [
            str(kept),
            "00000000-0000-0000-0000-000000000001",
            {"deep": ["2026-07-01", r"b'a\xff'", "1180591620717411303424", "inf"]},
        ]
        again = outcome(worker, rerun_run(run))
        assert got() == first
        assert (again.args, again.kwargs) == (run.args, run.kwargs)
        assert options_of(again) == options_of(run)
