"""From a run in flight to its finished record."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from systemtasks.runs import recorder
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.exceptions import ExceptionText
from systemtasks.runs.journal_line import SENT_HEADER, id_text
from systemtasks.runs.messages import Message, Messages, level_name, log_events
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord, TaskInfo
from systemtasks.runs.values import clean_text
from systemtasks.states import State, Status

WHERE = {"routing_key": "celery"}
LEASE = str(UUID(int=1))
INFO = TaskInfo(name="shop.charge", description="Charge.", expires_after=timedelta(days=30))


@pytest.fixture(autouse=True)
def _no_current_run() -> Iterator[None]:
    yield
    recorder.current.set(None)


def begin(info: TaskInfo = INFO, **changes: Any) -> Run:
    """Return a run of that task. The changes are to its request, or to its start."""
    nested, started = changes.pop("nested", False), changes.pop("started", None)
    request = {"id": "id-1", "delivery_info": WHERE, "hostname": "celery@host", **changes}
    run = Run(info, request, Arguments(None, None), LEASE)
    if started is not None:
        run.belongs_to_child(started)
    return recorder.start(run, nested=nested)


def messages(record: RunRecord) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(record.messages)
    return parsed


@pytest.mark.parametrize(
    ("state", "logged", "status"),
    [
        (State.SUCCESS, None, Status.SUCCESSFUL),
        (State.SUCCESS, logging.INFO, Status.SUCCESSFUL),
        (State.SUCCESS, logging.WARNING, Status.WARNING),
        (State.SUCCESS, logging.CRITICAL, Status.WARNING),
        (State.FAILURE, None, Status.ERROR),
        (State.RETRY, None, Status.WARNING),
        (State.REVOKED, None, Status.WARNING),
        (State.REJECTED, None, Status.WARNING),
        (State.IGNORED, logging.ERROR, Status.UNKNOWN),
    ],
)
def test_status_follows_from_state_and_worst_level(
    state: State, logged: int | None, status: Status
) -> None:
    run = begin()
    if logged is not None:
        run.log(logged, "shop", "said", {})

    assert run.finish(state).record().status == status


def test_log_rule_can_be_turned_off(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"WARNING_FROM_LOGS": False}
    run = begin()
    run.log(logging.ERROR, "shop", "said", {})

    assert run.finish(State.SUCCESS).record().status == Status.SUCCESSFUL


def test_exception_becomes_the_last_message() -> None:
    run = begin()
    run.log(logging.INFO, "shop", "Charging", {})
    try:
        raise PermissionError("refused")
    except PermissionError as error:
        run.fail(error)
    record = run.finish(State.FAILURE).record()

    assert record.exception == "PermissionError: refused"
    first, last = messages(record)
    assert first["event"] == "Charging"
    assert (last["event"], last["log_level"]) == ("PermissionError: refused", "error")
    assert last["attributes"]["exception"]["message"] == "refused"
    assert "raise PermissionError" in last["attributes"]["exception"]["traceback"]


def test_retry_says_its_reason_and_countdown() -> None:
    run = begin()
    run.retry(ConnectionError("away"), 2.0)
    (message,) = messages(run.finish(State.RETRY).record())

    assert message["event"] == "Retry in 2 s: ConnectionError: away"
    assert message["log_level"] == "warning"
    assert message["attributes"]["countdown"] == 2.0


def test_finish_is_never_before_start_when_the_system_clock_steps_back() -> None:
    run = begin()
    run.start += 3600
    record = run.finish(State.SUCCESS).record()

    assert record.start_timestamp
    assert record.finish_timestamp
    assert record.finish_timestamp >= record.start_timestamp
    assert record.duration == pytest.approx(
        (record.finish_timestamp - record.start_timestamp).total_seconds(), abs=1e-5
    )


@pytest.mark.parametrize(
    ("sent_before", "due_before", "wait"),
    [(10, None, 10), (10, 4, 4), (10, -5, 0), (None, None, None)],
)
def test_wait_counts_from_when_the_task_was_due(
    sent_before: int | None, due_before: int | None, wait: float | None
) -> None:
    now = datetime.now(UTC)
    sent = now.timestamp() - sent_before if sent_before is not None else None
    due = str(now - timedelta(seconds=due_before)) if due_before is not None else None
    record = begin(INFO, eta=due, **{SENT_HEADER: sent}).finish(State.SUCCESS).record()

    if wait is None:
        assert record.wait is None
    else:
        assert record.wait == pytest.approx(wait, abs=0.5)


def test_row_of_a_run_in_progress_expires_even_if_nobody_hears_of_its_end() -> None:
    record = begin().in_progress().record()
    assert record.start_timestamp
    assert record.expires == record.start_timestamp + timedelta(days=30)


def test_row_expires_after_its_finish_or_never() -> None:
    record = begin().finish(State.SUCCESS).record()
    assert record.finish_timestamp
    assert record.expires == record.finish_timestamp + timedelta(days=30)

    keep = TaskInfo(name="keep", description="", expires_after=None)
    assert begin(keep).finish(State.SUCCESS).record().expires is None


def test_errors_may_be_kept_longer(settings: Settings) -> None:
    settings.SYSTEMTASKS = {**settings.SYSTEMTASKS, "ERRORS_KEPT_LONGER_DAYS": 60}
    for state, days in ((State.FAILURE, 90), (State.SUCCESS, 30), (State.RETRY, 30)):
        record = begin().finish(state).record()
        assert record.finish_timestamp
        assert record.expires == record.finish_timestamp + timedelta(days=days)

    keep = TaskInfo(name="keep", description="", expires_after=None)
    assert begin(keep).finish(State.FAILURE).record().expires is None


def test_nested_run_gives_way_to_the_one_around_it() -> None:
    outer = begin(id="outer")
    inner = begin(id="inner", nested=True)

    assert recorder.current.get() is inner
    assert recorder.end("outer") is None
    assert recorder.end("inner") is inner
    assert recorder.current.get() is outer
    assert recorder.end("outer") is outer
    assert recorder.current.get() is None


def test_run_that_started_earlier_has_its_duration() -> None:
    started = datetime.now(UTC) - timedelta(seconds=5)
    record = begin(started=started.timestamp()).finish(State.FAILURE).record()

    assert record.start_timestamp == started
    assert record.duration == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize(("terminated", "status"), [(False, "warning"), (True, "error")])
def test_revoked_run_is_an_error_only_if_it_was_terminated(terminated: bool, status: str) -> None:
    run = begin()
    run.revoke("Stopped", terminated=terminated)
    record = run.finish(State.REVOKED).record()

    assert record.status == status
    assert [message["event"] for message in messages(record)] == ["Stopped"]


def test_odd_celery_ids_find_their_run() -> None:
    odd = "\ud800\0" + "x" * 400
    run = begin(id=odd)

    assert recorder.end(odd) is run
    assert run.finish(State.SUCCESS).record().celery_id == id_text(odd)


@pytest.mark.parametrize(
    ("level", "name"),
    [(60, "critical"), (45, "error"), (35, "warning"), (25, "info"), (15, "debug"), (5, "notset")],
)
def test_custom_level_is_named_after_the_nearest_below(level: int, name: str) -> None:
    assert level_name(level) == name


def event(number: int, size: int = 0) -> Message:
    return 1_767_225_600.0, 20, "shop", f"{number}" + "x" * size, {}


def told(log: Messages) -> list[Message]:
    read: list[Message] = orjson.loads(orjson.dumps(log.for_journal()))
    return read


def kept(log: Messages) -> list[str]:
    return [event for _, _, _, event, _ in told(log)]


def test_first_and_last_messages_are_kept_and_the_gap_is_counted(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"MESSAGE_LIMIT": 5}
    log = Messages()
    for number in range(10):
        log.append(event(number))

    assert kept(log) == ["0", "1", "5 messages are left out here", "7", "8", "9"]


def test_size_of_all_messages_is_bounded_and_the_last_one_is_kept(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"MESSAGE_LIMIT": 1000, "MESSAGES_LIMIT": 10_000}
    log = Messages()
    for number in range(100):
        log.append(event(number, size=1000))
    text = log_events(told(log))

    assert 8_000 < len(text) < 10_300  # with the note of what is left out
    events = [message["event"] for message in json.loads(text)]
    assert events[0].startswith("0x")
    assert events[-1].startswith("99x")
    assert any("messages are left out" in said for said in events)


def wide(size: int) -> list[str]:
    """Return a value of about this many bytes. Each of its texts is too short to be cut."""
    return ["x" * 1000] * (size // 1000)


def test_message_with_large_attributes_keeps_its_text_and_says_what_is_left_out() -> None:
    run = begin()
    run.log(logging.INFO, "shop", "Large", {"rows": wide(150_000), "number": 7})
    run.log(logging.INFO, "shop", "Larger", {"a": wide(60_000), "b": wide(80_000), "order": "A7"})
    for number in range(10):
        run.log(logging.INFO, "shop", f"Small {number}", {"number": number})
    large, larger, *small = messages(run.finish(State.SUCCESS).record())

    assert large["event"] == "Large"
    assert large["attributes"] == {"rows": "(left out: 150451 bytes)", "number": 7}
    assert larger["event"] == "Larger"
    assert larger["attributes"]["order"] == "A7"
    assert larger["attributes"]["a"] == "(left out: 60181 bytes)"
    assert [message["attributes"]["number"] for message in small] == list(range(10))


def test_large_attributes_leave_room_for_the_texts_of_other_messages() -> None:
    run = begin()
    for number in range(100):
        run.log(logging.INFO, "shop", f"Text {number}", {"rows": wide(100_000)})

    assert [message["event"] for message in messages(run.finish(State.SUCCESS).record())] == [
        f"Text {number}" for number in range(100)
    ]


def test_exception_with_large_attributes_keeps_its_traceback() -> None:
    run = begin()
    run.fail(ValueError("é" * 20_000))
    run.ended = False
    error = ExceptionText.of(KeyError("order"), 8192)
    run.log(logging.ERROR, "shop", "Failed", {"rows": wide(150_000), "order": 7}, error)
    run.log(logging.INFO, "shop", "After", {})
    second, _, first = messages(run.finish(State.FAILURE).record())

    assert first["attributes"]["exception"]["message"].startswith("é" * 8000)
    assert second["attributes"]["rows"].startswith("(left out: ")
    assert second["attributes"]["order"] == 7
    assert second["attributes"]["exception"]["type"] == "KeyError"


values = st.recursive(
    st.none() | st.integers() | st.text(st.characters(exclude_categories=()), max_size=300),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
)


@hypothesis_settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.text(max_size=300) | st.just("exception"), values, max_size=10),
    st.integers(1000, 5000),
    st.text(max_size=20),
)
def test_text_stays_whatever_the_attributes_are(
    attributes: dict[str, Any], limit: int, event: str
) -> None:
    with override_settings(SYSTEMTASKS={"MESSAGES_LIMIT": limit, "HIDDEN_KEYS": "(?!)"}):
        run = begin()
        run.log(logging.INFO, "shop", event, attributes)
        run.log(logging.INFO, "shop", "After", {})
        first, last = messages(run.finish(State.SUCCESS).record())

    assert (first["event"], last["event"]) == (clean_text(event, 8192), "After")
    size = len(orjson.dumps(first["attributes"]))
    assert size <= limit // 2
    cut = [name for name, value in first["attributes"].items() if "(left out: " in str(value)]
    assert cut or len(first["attributes"]) == len(attributes)


def test_messages_within_the_bounds_are_all_kept_in_order(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"MESSAGE_LIMIT": 5}
    log = Messages()
    for number in range(5):
        log.append(event(number))

    assert kept(log) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 2), (3, 3)])
def test_a_few_short_messages_are_bounded_too(
    settings: Settings, limit: int, expected: int
) -> None:
    settings.SYSTEMTASKS = {"MESSAGE_LIMIT": limit}
    log = Messages()
    for number in range(4):
        log.append(event(number))

    assert len(kept(log)) == expected + 1  # the note


@pytest.mark.parametrize("size", [0, 255, 256, 2000])
def test_messages_of_any_length_are_bounded_in_bytes(settings: Settings, size: int) -> None:
    settings.SYSTEMTASKS = {"MESSAGE_LIMIT": 1000, "MESSAGES_LIMIT": 30_000}
    log = Messages()
    for number in range(500):
        log.append((0.0, 20, "\1" * 255, "\1" * size + f"{number}", {}))

    assert len(log_events(told(log))) < 30_000 + 300
    assert kept(log)[-1].endswith("499")


@pytest.mark.parametrize("size", range(360, 380))
def test_text_stays_if_an_exception_just_fits_or_just_does_not(size: int) -> None:
    with override_settings(SYSTEMTASKS={"MESSAGES_LIMIT": 1000, "HIDDEN_KEYS": "(?!)"}):
        run = begin()
        run.log(logging.INFO, "shop", "Before", {"a": 1, "exception": "x" * size})
        run.log(logging.INFO, "shop", "After", {})
        events = [message["event"] for message in messages(run.finish(State.SUCCESS).record())]

    assert events == ["Before", "After"]
