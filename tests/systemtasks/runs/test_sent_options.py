"""The options of a message are kept, or named as missing."""

import json
from datetime import timedelta
from typing import Any

import orjson
import pytest
from celery.app.task import Context

from config.celery import app
from systemtasks.conf import conf
from systemtasks.runs import recorder, sent_options
from systemtasks.runs.arguments import Arguments, clean_arguments
from systemtasks.runs.journal_line import SENT_HEADER
from systemtasks.runs.records import TaskInfo
from tests.systemtasks.entries import NOON
from tests.systemtasks.runs.test_recorder import INFO

SENT = NOON.timestamp()


def kept(**request: Any) -> dict[str, Any]:
    """The column for a message with these fields."""
    values = {"id": "id-1", SENT_HEADER: SENT, **request}
    record = recorder.queued(INFO, values, Arguments("[]", "{}", True)).record()
    assert record.sent_options is not None
    return dict(orjson.loads(record.sent_options))


def test_ordinary_message_carries_nothing_besides() -> None:
    message = app.amqp.as_task_v2("id-1", "shop.charge", (1,), {})
    where = {"exchange": "", "routing_key": "celery", "priority": None}
    assert kept(**message.headers, delivery_info=where) == {}


def test_all_keys_of_celerys_messages_and_requests_are_known() -> None:
    second = app.amqp.as_task_v2("id-1", "shop.charge", (1,), {}).headers
    first = app.amqp.as_task_v1("id-1", "shop.charge", (1,), {}).body
    attributes = {name for name in vars(Context) if not callable(getattr(Context, name))}
    own = {name for name in attributes if not name.startswith("__")} - {"children"}
    assert {*second, *first, *own} <= sent_options.CELERY_KEYS


@pytest.mark.parametrize(
    "request_",
    [
        {"tenant": "acme", "locale": "de"},
        {"tenant": "acme", "headers": {"locale": "de"}},
        {"headers": {"tenant": "acme", "locale": "de", "systemtasks_sent": 1.0}},
        {"tenant": "acme", "locale": "de", "x-death": [{"count": 1}], "celery_beat_task": True},
    ],
)
def test_own_headers_are_kept_wherever_celery_has_them(request_: dict[str, Any]) -> None:
    assert kept(**request_) == {"headers": {"tenant": "acme", "locale": "de"}}


def test_where_how_and_how_long_a_message_was_sent_is_kept() -> None:
    assert kept(
        delivery_info={"exchange": "feeds", "routing_key": "feed.tsv", "priority": 0},
        expires=(NOON + timedelta(minutes=5)).isoformat(),
        timelimit=[60, 30.5],
        systemtasks_content_type="application/x-yaml",
    ) == {
        "exchange": "feeds",
        "routing_key": "feed.tsv",
        "priority": 0,
        "expires": 300.0,
        "time_limit": 60,
        "soft_time_limit": 30.5,
        "content_type": "application/x-yaml",
    }


@pytest.mark.parametrize(
    "value",
    ["Bearer 0123456789abcdef0123456789abcdef", "https://ada:secret@shop", "x" * 5000, object()],
)
def test_header_that_is_masked_or_cut_is_named_as_missing(value: object) -> None:
    found = kept(tenant="acme", credentials=value)
    assert found == {"headers": {"tenant": "acme"}, "missing": ["the header 'credentials'"]}


def test_header_with_the_name_of_a_secret_is_missing_and_is_not_in_the_journal() -> None:
    values = {"id": "id-1", "api_key": "0815", "trace": {"id": 1}}
    entry = recorder.queued(INFO, values, Arguments("[]", "{}", True))
    assert b"0815" not in entry.line
    assert json.loads(entry.record().sent_options or "") == {
        "headers": {"trace": {"id": 1}},
        "missing": ["the header 'api_key'"],
    }


def test_header_with_a_secret_of_the_arguments_is_missing() -> None:
    assert conf().MASK_TEXTS
    info = TaskInfo("shop.charge", masked=frozenset({"code"}))
    arguments = clean_arguments(info, [], {"code": "swordfish"})
    values = {"id": "id-1", "note": "code swordfish", "tenant": "acme"}
    entry = recorder.queued(info, values, arguments)
    assert b"swordfish" not in entry.line
    assert json.loads(entry.record().sent_options or "") == {
        "headers": {"tenant": "acme"},
        "missing": ["the header 'note'"],
    }


@pytest.mark.parametrize("expires", ["never", 7.5, "2020-01-01T00:00:00+00:00"])
def test_expiry_from_which_no_time_follows_is_missing(expires: object) -> None:
    assert kept(expires=expires) == {"missing": ["the time until it expires"]}


@pytest.mark.parametrize("options", [7, [], {"headers": "{"}, {"headers": '"\\u0000"'}])
def test_odd_options_of_a_journal_are_no_options(options: object) -> None:
    try:
        text = sent_options.column(options, NOON, None, masks=True)
    except ValueError:
        return
    assert text == "{}"


def test_group_of_a_message_and_the_callback_of_its_chord_are_kept() -> None:
    callback = app.signature("shop.sum", options={"task_id": "the-callback"})
    assert kept(group="the-group") == {"group": "the-group"}
    assert kept(group="g", chord=callback) == {"group": "g", "chord": "the-callback"}
    assert kept(group="g", chord=dict(callback)) == {"group": "g", "chord": "the-callback"}
    assert kept(chord=callback) == {}
    odd: Any
    for odd in ("text", {"options": "text"}, {"options": {}}, {}):
        assert kept(group="g", chord=odd) == {"group": "g"}
