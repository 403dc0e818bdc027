"""What a task logs becomes its messages; what others log does not."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.capture import logs
from systemtasks.runs import messages, recorder
from systemtasks.runs.messages import Messages
from systemtasks.runs.recorder import Run
from systemtasks.states import State
from tests.systemtasks.runs.test_recorder import begin


@pytest.fixture
def run() -> Iterator[Run]:
    logging.root.setLevel(logging.INFO)
    logs.install()
    yield begin()
    recorder.current.set(None)


def said(run: Run) -> list[dict[str, Any]]:
    logged: list[dict[str, Any]] = json.loads(run.finish(State.SUCCESS).record().messages)
    return logged


def test_message_is_formatted_and_extra_becomes_attributes(run: Run) -> None:
    logging.getLogger("shop.orders").info("Order %d", 7, extra={"order": 7, "vip": True})
    (message,) = said(run)

    assert message["event"] == "Order 7"
    assert message["logger"] == "shop.orders"
    assert message["log_level"] == "info"
    assert message["attributes"] == {"order": 7, "vip": True}


def test_logged_exception_is_an_attribute(run: Run) -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        logging.getLogger("shop").exception("Lookup failed")
    (message,) = said(run)

    assert message["event"] == "Lookup failed"
    assert message["attributes"]["exception"]["type"] == "KeyError"
    assert "raise KeyError" in message["attributes"]["exception"]["traceback"]


def test_structlog_event_dictionary_is_taken_apart(run: Run) -> None:
    logging.getLogger("shop").warning({"event": "paid", "order": 7, "level": "warning"})
    (message,) = said(run)

    assert (message["event"], message["attributes"]) == ("paid", {"order": 7})


def test_structlog_event_that_is_rendered_as_json_is_taken_apart(run: Run) -> None:
    rendered = '{"order": 7, "password": "hunter2", "event": "paid", "level": "info"}'
    logging.getLogger("shop").info(rendered)
    (message,) = said(run)

    assert message["event"] == "paid"
    assert message["attributes"] == {"order": 7, "password": "********"}


@pytest.mark.parametrize(
    "text", ['{"order": 7}', '{"event": "paid"', "{}", "{", '{"event": "\ud800"}', "{%s} left"]
)
def test_text_that_only_looks_like_an_event_is_a_message(run: Run, text: str) -> None:
    logging.getLogger("shop").info(text)
    (message,) = said(run)

    assert message["event"] == text.replace("\ud800", "\N{REPLACEMENT CHARACTER}")
    assert message["attributes"] == {}


def test_format_that_looks_like_an_event_is_a_format(run: Run) -> None:
    logging.getLogger("shop").info('{"event": "%s"}', "paid")

    assert [message["event"] for message in said(run)] == ['{"event": "paid"}']


@pytest.mark.parametrize("name", ["celery.app.trace", "celery.worker.strategy", "kombu.x", "amqp"])
def test_celerys_own_chatter_is_left_out(run: Run, name: str) -> None:
    logging.getLogger(name).warning("Task succeeded")

    assert said(run) == []


@pytest.mark.parametrize("name", ["celery.task", "celery.redirected", "celeryapp", "shop"])
def test_other_loggers_are_kept(run: Run, name: str) -> None:
    logging.getLogger(name).warning("Hello")

    assert [message["event"] for message in said(run)] == ["Hello"]


def test_printed_line_is_no_warning(run: Run) -> None:
    logging.getLogger("celery.redirected").warning("printed")

    assert run.finish(State.SUCCESS).record().status == "successful"
    assert [message["log_level"] for message in said(run)] == ["info"]


def test_logger_that_does_not_propagate_is_heard_once(run: Run) -> None:
    logger = logging.getLogger("private")
    logger.propagate = False
    logs.install()
    logs.install()
    logger.warning("Psst")
    logging.getLogger("private.child").warning("Psst too")

    assert [message["event"] for message in said(run)] == ["Psst", "Psst too"]


def test_debug_is_below_the_default_level(run: Run) -> None:
    logger = logging.getLogger("shop.debug")
    logger.setLevel(logging.DEBUG)
    logger.debug("Details")
    logger.info("Summary")

    assert [message["event"] for message in said(run)] == ["Summary"]


def test_nothing_is_recorded_outside_a_run() -> None:
    logs.install()
    logging.getLogger("shop").warning("Nobody's message")
    run = begin()

    assert said(run) == []
    recorder.current.set(None)


def test_malformed_call_is_one_message(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("malformed")
    logger.propagate = False  # so that no other handler complains of it
    logger.handlers = [logging.NullHandler()]
    logs.install()
    logger.warning("Paid %d", "x", extra={"order": 7})
    logger.warning("Paid %(sum)d", {"sum": "x", "password": "hunter2"})

    assert [(message["event"], message["attributes"]) for message in said(run)] == [
        ("Paid %d", {"args": ["x"], "order": 7}),
        ("Paid %(sum)d", {"args": {"sum": "x", "password": "********"}}),
    ]
    assert capsys.readouterr().err == ""


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


def test_objects_that_cannot_be_printed_are_described(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("shop").warning(Hostile())
    logging.getLogger("shop").warning("Paid %s", Hostile())
    described = "<Hostile whose repr raises RuntimeError>"

    assert [(message["event"], message["attributes"]) for message in said(run)] == [
        (described, {"args": []}),
        ("Paid %s", {"args": [described]}),
    ]


def test_soft_time_limit_that_comes_while_a_task_logs_reaches_the_task(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(Run, "log", interrupted)

    with pytest.raises(SoftTimeLimitExceeded):
        logging.getLogger("shop").warning("Said")


def test_keys_that_are_no_text_cost_no_message(run: Run) -> None:
    logging.getLogger("shop").warning("Said", extra={7: "seven"})  # type: ignore[dict-item]

    assert [message["attributes"] for message in said(run)] == [{"7": "seven"}]


@pytest.mark.parametrize(
    "odd",
    [
        {"created": "yesterday"},
        {"created": 1e30},
        {"created": None},
        {"levelno": Decimal(20)},
        {"levelno": 20.5},
    ],
)
def test_odd_log_record_keeps_nothing_from_its_run(run: Run, odd: dict[str, Any]) -> None:
    record = {"name": "shop", "msg": "Odd", "levelno": logging.INFO, **odd}
    logging.getLogger("shop").handle(logging.makeLogRecord(record))

    (message,) = said(run)
    assert (message["event"], message["log_level"]) == ("Odd", "info")
    assert datetime.fromisoformat(message["timestamp"])


def test_odd_log_record_keeps_nothing_from_what_is_said_after_it(run: Run) -> None:
    logging.getLogger("shop").info("Before")
    odd = {"name": "shop", "msg": "Odd", "levelno": Decimal(20), "created": Decimal(7)}
    logging.getLogger("shop").handle(logging.makeLogRecord(odd))
    logging.getLogger("shop").info("After")
    run.fail(ValueError("the cause"))

    assert [message["event"] for message in said(run)] == [
        *("Before", "Odd", "After", "ValueError: the cause"),
    ]


def test_what_logs_while_a_message_is_added_waits_for_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what is collected as garbage may: the interpreter collects it wherever it is."""
    monkeypatch.setattr(messages, "SHORT", 0)
    keep = Messages._keep

    def collecting(log: Messages, text: bytes) -> None:
        monkeypatch.undo()
        logging.getLogger("shop").info("Unclosed")
        keep(log, text)

    monkeypatch.setattr(Messages, "_keep", collecting)
    logging.getLogger("shop").info("Hello")

    assert sorted(message["event"] for message in said(run)) == ["Hello", "Unclosed"]


def test_process_without_configuration_prints_what_it_would_anyway(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def log() -> str:
        logging.getLogger("shop").warning("Printed")
        logging.getLogger("shop").info("Too little")
        library.warning("Not printed")
        private.error("Printed as well")
        return capsys.readouterr().err

    monkeypatch.setattr(logging.root, "handlers", [])
    library, private = logging.getLogger("library"), logging.getLogger("unconfigured")
    library.addHandler(logging.NullHandler())
    private.propagate = False
    before = log()
    logs.install()
    logs.install()

    assert before == "Printed\nPrinted as well\n"
    assert log() == before
    assert [message["event"] for message in said(run)] == [
        *("Printed", "Too little", "Not printed", "Printed as well"),
    ]
