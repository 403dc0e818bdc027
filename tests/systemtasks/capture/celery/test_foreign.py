"""No value in a message makes our code fail, if Celery itself survives it."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer.consumer import Consumer
from celery.worker.strategy import default
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kombu.message import Message
from kombu.serialization import dumps

from config.celery import app
from systemtasks.capture.celery import signals
from systemtasks.models import TaskRun
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import (
    BEAT_HEADER,
    CONTEXT_HEADER,
    EXECUTION,
    PARENT_HEADER,
    REPLACES_HEADER,
    RUN_HEADER,
    SENT_HEADER,
)
from systemtasks.runs.records import RunRecord
from systemtasks.storage import rows
from systemtasks.storage.failures import failures
from tests import tasks
from tests.systemtasks.conftest import Collector

HEADERS = (
    *("lang", "shadow", "eta", "expires", "group", "group_index", "retries", "root_id"),
    *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "timelimit"),
    *("replaced_task_nesting", "stamped_headers", "stamps", "headers", "hostname", "args"),
    *("delivery_info", "is_eager", "task", "id", SENT_HEADER, CONTEXT_HEADER, BEAT_HEADER),
    *(RUN_HEADER, PARENT_HEADER, REPLACES_HEADER, EXECUTION),
)
texts = st.text(max_size=20) | st.sampled_from(["", " ", "\0", "\u202e", "2026-01-01T00:00:00Z"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    # Kombu's JSON has these types, too.
    st.datetimes(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["tests.succeed", "tests.succeed", "tests.nobody_knows", "", " "])


@st.composite
def messages(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    """Return the headers and the body of a message of protocol 1 or 2, with any values."""
    fields: dict[str, Any] = {"task": draw(names), "id": draw(texts)}
    fields |= draw(st.dictionaries(st.sampled_from(HEADERS), values, max_size=3))
    args = draw(values | st.just([1]))
    kwargs = draw(values | st.just({}) | st.just({"label": "x"}))
    if draw(st.booleans()):
        headers = draw(st.dictionaries(st.sampled_from(HEADERS) | texts, values, max_size=2))
        return headers, {**fields, "args": args, "kwargs": kwargs}
    return {"lang": "py", **fields}, draw(st.just([args, kwargs, {}]) | values)


@pytest.fixture
def consumer() -> Consumer:
    """Return a worker's consumer of messages. It runs each task at once, in this process."""
    made: Any = object.__new__(Consumer)
    pool = SimpleNamespace(apply_async=lambda target, args, **_: target(*args))
    made.__dict__ |= {
        "app": app,
        "hostname": "celery@here",
        "connection_errors": (),
        "event_dispatcher": None,
        "timer": SimpleNamespace(call_at=lambda *_, **__: None),
        "disable_rate_limits": True,
        "task_buckets": {},
        "controller": SimpleNamespace(state=SimpleNamespace(revoked=set())),
        "pool": pool,
        "qos": SimpleNamespace(increment_eventually=lambda: None),
        "on_task_request": lambda request: request.execute_using_pool(pool),
        "on_task_message": (),
        "_maximum_prefetch_restored": True,
        "blueprint": SimpleNamespace(human_state=lambda: "running"),
    }
    task = app.tasks[tasks.succeed.name]
    made.strategies = {task.name: default(task, app, made)}
    consumer: Consumer = made
    signals._note_undecodable(consumer)
    return consumer


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunRecord]]:
    collector = Collector()
    monkeypatch.setattr(signals, "writer", collector)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    yield collector.records
    recorder.current.set(None)


def deliver(consumer: Any, headers: dict[str, Any], body: Any) -> None:
    content_type, encoding, text = dumps(body, "json")
    message = Message(
        body=text,
        content_type=content_type,
        content_encoding=encoding,
        headers=headers,
        properties={},
        delivery_info={"routing_key": "systemtasks"},
        accept={"application/json"},
        channel=SimpleNamespace(
            basic_ack=lambda *_, **__: None, basic_reject=lambda *_, **__: None
        ),
        delivery_tag="1",
    )
    with suppress(Exception):  # it would end a worker
        consumer.create_task_handler()(message)


@pytest.mark.django_db
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100
)
@given(messages())
def test_any_value_anywhere_in_a_message_fails_nothing_of_ours(
    consumer: Consumer, collected: list[RunRecord], message: tuple[dict[str, Any], Any]
) -> None:
    collected.clear()
    before = failures.counts()
    deliver(consumer, *message)
    recorder.current.set(None)
    TaskRun.objects.all().delete()
    rows.write(collected)

    assert failures.counts() == before
    for run in TaskRun.objects.select_related("system_task"):
        assert run.system_task.name.strip()
        assert run.args is None or isinstance(run.args, list)
        assert run.kwargs is None or isinstance(run.kwargs, dict)
