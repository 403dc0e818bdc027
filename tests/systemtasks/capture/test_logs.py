"""A task's log records become its messages, and others do not."""

import io
import json
import logging
import logging.config
import sys
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import loguru
import numpy as np
import pytest
import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from pytest_django import Settings

from systemtasks import reporting
from systemtasks.capture import logs, loguru_sink
from systemtasks.own_logger import own_logger
from systemtasks.runs import messages, recorder
from systemtasks.runs.messages import Messages
from systemtasks.runs.recorder import Run
from systemtasks.states import State
from tests.systemtasks.runs.test_recorder import begin
from tests.systemtasks.traps import Size, Word


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
    logger.propagate = False  # so that no other handler fails on it
    logger.handlers = [logging.NullHandler()]
    logs.install()
    logger.warning("Paid %d", "x", extra={"order": 7})
    logger.warning("Paid %(sum)d", {"sum": "x", "password": "hunter2"})

    assert [(message["event"], message["attributes"]) for message in said(run)] == [
        ("Paid %d", {"args": ["x"], "order": 7}),
        ("Paid %(sum)d", {"args": {"sum": "x", "password": "********"}}),
    ]
    assert capsys.readouterr().err == ""


def test_named_argument_of_a_message_is_masked_by_its_name(run: Run, settings: Settings) -> None:
    logger = logging.getLogger("shop")
    given = {"password": "hun ter", "user": "bob", "pin": 1234, "token": None}
    logger.warning("%(user)s has %(password)s, %(pin)s, %(token)s", given)
    settings.SYSTEMTASKS = {"MASK_TEXTS": False}
    logger.warning("%(user)s has %(password)s", given)

    assert [message["event"] for message in said(run)] == [
        "bob has ********, ********, None",
        "bob has hun ter",
    ]


class Counting:
    """Counts how often it is printed."""

    printed = 0

    def __str__(self) -> str:
        self.printed += 1
        return f"order {self.printed}"

    __repr__ = __str__


class CountingError(Exception):
    printed = 0

    def __str__(self) -> str:
        self.printed += 1
        return f"no order {self.printed}"


@pytest.fixture
def logger() -> logging.Logger:
    """Return a logger with only our handler, so that no other one prints the records."""
    # Pytest would capture the records of a registered logger.
    made = logging.Logger("alone", logging.INFO)  # noqa: LOG001
    made.addHandler(logging.NullHandler())
    return made


@pytest.mark.parametrize(
    ("call", "event"),
    [
        (("Paid %s", Counting()), "Paid <Counting>"),
        (("Paid %r by %.4s", Counting(), Counting()), "Paid <Counting> by <Cou"),
        (("Paid %(order)s", {"order": Counting()}), "Paid <Counting>"),
        (("Paid %s", {"order": Counting()}), "Paid {'order': <Counting>}"),
        (("Paid %s", [7, Counting()]), "Paid [7, <Counting>]"),
        (("Paid %s", (Counting(),)), "Paid (<Counting>,)"),
        ((Counting(),), "<Counting>"),
        (({"order": Counting()},), "{'order': <Counting>}"),
        (("Failed: %s", CountingError(7)), "Failed: 7"),
        (("Failed: %r", CountingError(7)), "Failed: CountingError(7)"),
        ((CountingError(7),), "7"),
        (("Said %s", gettext_lazy("text")), "Said <__proxy__>"),
        ((gettext_lazy("text"),), "<__proxy__>"),
    ],
)
def test_object_that_nobody_prints_is_named(
    run: Run, logger: logging.Logger, call: tuple[Any, ...], event: str
) -> None:
    logger.warning(*call)

    assert [(message["event"], message["attributes"]) for message in said(run)] == [(event, {})]


def test_object_that_is_logged_as_a_number_is_an_attribute(
    run: Run, logger: logging.Logger
) -> None:
    logger.warning("Paid %d", Counting(), extra={"order": 7})

    (message,) = said(run)
    assert message["event"] == "Paid %d"
    assert message["attributes"] == {"order": 7, "args": ["<Counting>"]}


@pytest.mark.parametrize("form", ["Paid %s", "Paid %r", "Paid %(order)s", Counting])
def test_object_that_a_handler_prints_is_printed_once(
    run: Run, logger: logging.Logger, form: Any
) -> None:
    printer = logging.StreamHandler(io.StringIO())
    logger.handlers.insert(0, printer)
    order = Counting()
    if form is Counting:
        logger.warning(order)
    else:
        logger.warning(form, {"order": order} if "order" in form else order)
    (message,) = said(run)

    assert order.printed == 1
    assert message["event"] == printer.stream.getvalue().strip()
    assert message["event"].endswith("order 1")


def test_object_that_no_handler_prints_at_that_level_is_named(
    run: Run, logger: logging.Logger
) -> None:
    printer = logging.StreamHandler(io.StringIO())
    printer.setLevel(logging.ERROR)
    logger.handlers.insert(0, printer)
    order = Counting()
    logger.info("Paid %s", order)

    assert [message["event"] for message in said(run)] == ["Paid <Counting>"]
    assert order.printed == 0


def test_exception_that_a_handler_prints_is_printed_once(run: Run, logger: logging.Logger) -> None:
    logger.handlers.insert(0, logging.StreamHandler(io.StringIO()))
    error = CountingError(7)
    logger.error("Caught", exc_info=error)
    (message,) = said(run)

    assert error.printed == 1
    assert message["attributes"]["exception"]["message"] == "no order 1"
    assert message["attributes"]["exception"]["traceback"].endswith("CountingError: no order 1\n")


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("form", "args"),
    [
        ("%s %s %s %s", (None, True, 1.5, b"bytes")),
        ("%5.1f%% %-3d| %x %c %e", (99.5, 7, 255, 65, 1e9)),
        ("%(a)s %(b)d %(a)r", ({"a": "text", "b": 7},)),
        ("%s %.2f %d %r", (Decimal("1.50"), Decimal("1.50"), Decimal(7), Decimal(7))),
        (
            "%s %r",
            (
                datetime(2026, 1, 1, 12),  # noqa: DTZ001
                datetime(2026, 1, 1, tzinfo=UTC),
            ),
        ),
        ("%s %s %s", (date(2026, 1, 1), time(12), timedelta(1))),
        ("%s %s", (UUID(int=1), Path("/tmp/file"))),
        ("%d %s %.2f %s", (np.int64(7), np.float64(1.5), np.float32(0.5), np.bool_(True))),
        ("%d %s", (Size.LARGE, Size.LARGE)),
        ("%s %d", (2**63, -(2**64))),
        ("%s %s %r", (mark_safe("text"), Word.KEY, mark_safe("text"))),
        ("%s %s %s", ([1, "two", None], (1, (2.5,)), {"a": {1: [True]}})),
        ("%s", ({"a": [1]},)),
        ("%s", ([{"a": (1,)}],)),
        ("%s %r", (ValueError("wrong"), ValueError("wrong", 7))),
        ("%s", (OSError(2, "No such file", "name"),)),
        ("%*d|%-*s|", (5, 7, 3, "x")),
    ],
)
def test_arguments_are_formatted_as_python_does(
    run: Run, logger: logging.Logger, form: str, args: Any
) -> None:
    logger.warning(form, *args)
    (message,) = said(run)

    assert message["event"] == form % (args[0] if "%(" in form else args)
    assert message["attributes"] == {}


@pytest.mark.parametrize(
    ("call", "attributes"),
    [
        (("%*d", 10**9, 7), {"args": [10**9, 7]}),
        (("%.*f", 10**9, 1.5), {"args": [10**9, 1.5]}),
        (("%s" * 300, *range(300)), {"args": [*range(200), "… (100 more)"]}),
    ],
)
def test_message_that_would_be_large_is_not_formatted(
    run: Run, logger: logging.Logger, call: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    logger.warning(*call)
    (message,) = said(run)

    assert (message["event"], message["attributes"]) == (call[0], attributes)


@pytest.mark.parametrize(
    ("call", "event"),
    [
        (("x" * 20_000,), "x" * 8192 + "… (11808 more characters)"),
        (("%s", "x" * 20_000), "x" * 8192 + "… (25 more characters)"),
        (
            ("%s", deque(range(10_000))),
            f"deque([{', '.join(map(str, range(200)))}, … (9800 more)])",
        ),
        (("%s", b"x" * 10_000), f"b'{'x' * 2048}'… (7952 more bytes)"),
        (("%s", 1 << 100_000), "<int of 100001 bits>"),
        (("%.5s", "x" * 20_000), "xxxxx"),
    ],
)
def test_large_argument_is_cut(
    run: Run, logger: logging.Logger, call: tuple[Any, ...], event: str
) -> None:
    logger.warning(*call)

    assert [message["event"] for message in said(run)] == [event]


class OwnRecord(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.request = "request-1"
        super().__init__(*args, **kwargs)
        self.tenant = 7


def test_attributes_of_a_record_of_a_projects_own_are_kept(run: Run) -> None:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(OwnRecord)
    try:
        logging.getLogger("shop").info("Said", extra={"order": 7})
    finally:
        logging.setLogRecordFactory(before)

    assert said(run)[0]["attributes"] == {"request": "request-1", "tenant": 7, "order": 7}


@pytest.mark.parametrize("name", logs.PLAIN_ATTRIBUTES[:-1])
def test_attributes_are_kept_whatever_a_filter_sets_anew(
    run: Run, logger: logging.Logger, name: str
) -> None:
    record = logger.makeRecord("shop", 20, "x.py", 1, "Said", (), None, extra={"order": 7})
    record.__dict__[name] = record.__dict__.pop(name)
    record.tenant = 7
    logger.handle(record)

    attributes = said(run)[0]["attributes"]
    assert attributes["tenant"] == 7
    assert attributes.get("order") == 7


def test_large_structured_event_is_bounded(run: Run, logger: logging.Logger) -> None:
    logger.warning({"event": "paid", **{f"key {number}": number for number in range(1000)}})
    (message,) = said(run)

    assert message["event"] == "paid"
    assert message["attributes"]["…"] == "(801 more)"
    assert len(message["attributes"]) == 200


def test_large_text_is_not_read_as_an_event(
    run: Run, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"event": "' + "x" * 300_000 + '"}'
    monkeypatch.setattr(logs, "orjson", None)
    logger.warning(text)

    assert said(run)[0]["event"].startswith('{"event": "xxx')


def test_failure_of_our_own_is_logged_and_prints_no_argument(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Run, "log", broken)
    order = Counting()
    logging.getLogger("shop").warning("Paid", extra={"order": order})

    assert "What a task has logged is not recorded" in caplog.text
    assert order.printed == 0


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
    """A finalizer may log at any point: the interpreter collects garbage anywhere."""
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
    monkeypatch.setattr(logging.root, "handlers", [])
    library, private = logging.getLogger("library"), logging.getLogger("unconfigured")
    library.addHandler(logging.NullHandler())
    private.propagate = False
    logging.getLogger("shop").warning("Printed")
    logging.getLogger("shop").info("Too little")
    library.warning("Not printed")
    private.error("Printed as well")

    assert capsys.readouterr().err == "Printed\nPrinted as well\n"
    assert [message["event"] for message in said(run)] == [
        *("Printed", "Too little", "Not printed", "Printed as well"),
    ]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Yield the output of the root logger's handler, and then restore the configuration."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    before, level, disable = (
        logging.root.handlers[:],
        logging.root.level,
        logging.root.manager.disable,
    )
    logging.root.handlers[:] = [handler]
    yield shown
    logging.root.handlers[:] = before
    logging.root.setLevel(level)
    logging.disable(disable)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def events(run: Run) -> list[str]:
    return [message["event"] for message in said(run)]


@pytest.mark.usefixtures("console")
def test_what_follows_a_new_configuration_is_recorded(run: Run) -> None:
    logging.getLogger("warehouse").info("Before")
    logging.basicConfig(force=True, level=logging.ERROR)
    logging.getLogger("warehouse").warning("After basicConfig")
    logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})
    logging.getLogger("warehouse").warning("After dictConfig")

    assert events(run) == ["Before", "After basicConfig", "After dictConfig"]
    assert run.finish(State.SUCCESS).record().status == "warning"


def hide_by_root() -> None:
    logging.root.setLevel(logging.ERROR)


def hide_by_handler() -> None:
    logging.root.handlers[0].setLevel(logging.ERROR)


def hide_by_logger_with_handlers() -> None:
    logging.getLogger("hidden").addHandler(logging.NullHandler())
    logging.getLogger("hidden").setLevel(logging.ERROR)


def hide_by_disabling_the_logger() -> None:
    logging.getLogger("hidden").disabled = True


def hide_by_disabling_the_level() -> None:
    logging.disable(logging.WARNING)


@pytest.mark.parametrize(
    "hide",
    [
        hide_by_root,
        hide_by_handler,
        hide_by_logger_with_handlers,
        hide_by_disabling_the_logger,
        hide_by_disabling_the_level,
    ],
)
def test_what_the_console_does_not_show_is_recorded_and_not_shown(
    run: Run, console: io.StringIO, hide: Callable[[], None]
) -> None:
    logger = logging.getLogger("hidden")
    adapter = logging.LoggerAdapter(logger, {"order": 7})
    hide()
    try:
        logger.info("By %s", "info", extra={"order": 7})
        logger.log(logging.WARNING, "By log %(id)d", {"id": 7})
        logger.debug("Too little")
        adapter.info("By an adapter")
        if logger.isEnabledFor(logging.INFO):
            logger.info("By one that asks")
        logger._log(logging.INFO, "By a level of its own", ())
    finally:
        logger.setLevel(logging.NOTSET)
        logger.handlers.clear()

    assert console.getvalue() == ""
    messages = said(run)
    assert [message["event"] for message in messages] == [
        "By info",
        "By log 7",
        "By an adapter",
        "By one that asks",
        "By a level of its own",
    ]
    attributes = [message["attributes"] for message in messages]
    assert attributes == [{"order": 7}, {}, {"order": 7}, {}, {}]
    assert messages[1]["log_level"] == "warning"


def test_event_of_structlog_that_the_console_does_not_show_is_recorded(
    run: Run, console: io.StringIO
) -> None:
    logging.root.setLevel(logging.ERROR)
    processors: list[Any] = [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.render_to_log_kwargs,
    ]
    logger = structlog.wrap_logger(logging.getLogger("warehouse"), processors=processors)
    logger.info("paid", order=7)
    logger.debug("too little")
    logging.getLogger("warehouse").info("Not shown either")

    assert console.getvalue() == ""
    assert [(each["event"], each["attributes"]) for each in said(run)] == [
        ("paid", {"order": 7}),
        ("Not shown either", {}),
    ]


def test_exception_that_the_console_does_not_show_is_recorded(
    run: Run, console: io.StringIO
) -> None:
    logging.root.setLevel(logging.CRITICAL)
    try:
        raise KeyError("missing")
    except KeyError as error:
        logging.getLogger("warehouse").exception("Lookup failed")
        logging.getLogger("warehouse").info("Again", exc_info=error)

    assert console.getvalue() == ""
    kinds = [message["attributes"]["exception"]["type"] for message in said(run)]
    assert kinds == ["KeyError", "KeyError"]


def test_malformed_call_of_a_level_that_is_off_still_does_no_harm(
    run: Run, console: io.StringIO
) -> None:
    logging.root.setLevel(logging.ERROR)
    logging.getLogger("warehouse").info("Reserved", extra={"name": "x", "order": 7})  # noqa: G101
    logging.getLogger("warehouse").info("Unknown", order=7)  # type: ignore[call-arg]

    assert [(each["event"], each["attributes"]) for each in said(run)] == [
        ("Reserved", {"order": 7}),
        ("Unknown", {}),
    ]


def test_records_that_a_filter_drops_or_replaces_are_so_recorded(
    run: Run, console: io.StringIO
) -> None:
    logger = logging.getLogger("filtered")
    logging.root.setLevel(logging.ERROR)

    def mask(record: logging.LogRecord) -> bool:
        record.msg = record.msg.replace("hunter2", "***")
        return "noise" not in record.msg

    logger.addFilter(mask)
    for level in (logging.INFO, logging.ERROR):
        logger.log(level, "noise")
        logger.log(level, "hunter2")

    assert events(run) == ["***", "***"]
    assert console.getvalue() == "***\n"


def test_level_of_a_logger_without_handlers_keeps_its_noise_out(run: Run) -> None:
    logging.getLogger("talkative").setLevel(logging.WARNING)
    logging.getLogger("talkative.part").info("Noise")
    logging.getLogger("talkative.part").warning("Worth it")

    assert events(run) == ["Worth it"]
    assert not logging.getLogger("talkative").isEnabledFor(logging.INFO)


def test_record_that_is_passed_on_reaches_the_handlers_whatever_its_level(
    run: Run, console: io.StringIO
) -> None:
    logging.root.setLevel(logging.ERROR)
    record = logging.getLogger("warehouse").makeRecord("shop", 20, "x.py", 1, "Passed on", (), None)
    logging.getLogger("warehouse").handle(record)

    assert console.getvalue() == "Passed on\n"
    assert events(run) == ["Passed on"]


def test_nothing_changes_outside_a_run(console: io.StringIO) -> None:
    logs.install()
    logging.root.setLevel(logging.ERROR)

    assert not logging.getLogger("warehouse").isEnabledFor(logging.WARNING)
    assert logging.getLogger("warehouse").isEnabledFor(logging.ERROR)
    logging.getLogger("warehouse").warning("Not shown")
    assert console.getvalue() == ""


def test_own_logger_is_heard_though_a_configuration_disables_it(console: io.StringIO) -> None:
    logger = own_logger("systemtasks.test_own_logger")
    logger.warning("Before")
    config = {"version": 1, "root": {"level": "WARNING"}, "disable_existing_loggers": True}
    logging.config.dictConfig(config)
    logger.warning("After")

    assert logging.getLogger("systemtasks.test_own_logger").disabled is False
    assert console.getvalue() == "Before\n"  # whose handler dictConfig has removed


@pytest.fixture
def loguru_logger() -> Iterator[Any]:
    """Yield Loguru's logger without its sinks."""
    loguru.logger.remove()
    yield loguru.logger
    loguru.logger.remove()
    loguru.logger.add(sys.stderr)


def test_message_of_loguru_is_recorded_by_its_sink(run: Run, loguru_logger: Any) -> None:
    loguru_logger.add(reporting.loguru_sink, format="{message}")
    loguru_logger.bind(order=7, password="hunter2").warning("Paid {}", 8)
    loguru_logger.debug("Too little")
    try:
        raise KeyError("missing")
    except KeyError:
        loguru_logger.exception("Lookup failed")
    paid, failed = said(run)

    assert (paid["event"], paid["log_level"], paid["logger"]) == ("Paid 8", "warning", __name__)
    assert paid["attributes"] == {"order": 7, "password": "********"}
    assert (failed["event"], failed["log_level"]) == ("Lookup failed", "error")
    assert failed["attributes"]["exception"]["type"] == "KeyError"


def test_message_that_loguru_gets_from_logging_is_recorded_once(
    run: Run, loguru_logger: Any, console: io.StringIO
) -> None:
    class Intercept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loguru_logger.log(record.levelname, record.getMessage())

    loguru_logger.add(reporting.loguru_sink, format="{message}")
    logging.root.handlers[:] = [Intercept()]
    logging.getLogger("warehouse").info("Once")

    assert events(run) == ["Once"]


def test_sink_of_loguru_is_missed_where_it_is_used_without(loguru_logger: Any) -> None:
    loguru_logger.add(io.StringIO())
    assert loguru_sink.is_missing()
    loguru_logger.add(reporting.loguru_sink)
    assert not loguru_sink.is_missing()
    loguru_logger.remove()
    loguru_logger.add(logging.NullHandler())
    assert not loguru_sink.is_missing()


def test_exception_is_the_last_message_whatever_other_receivers_log(run: Run) -> None:
    run.fail(ValueError("the cause"))
    logging.getLogger("django_structlog.celery.receivers").critical("task_failed")
    record = run.finish(State.FAILURE).record()

    assert [message["event"] for message in json.loads(record.messages)] == [
        "task_failed",
        "ValueError: the cause",
    ]
    assert record.exception == "ValueError: the cause"


def test_reason_of_a_retry_is_the_last_message_as_well(run: Run) -> None:
    run.retry(ConnectionError("away"), 3.0)
    logging.getLogger("django_structlog.celery.receivers").warning("task_retrying")

    messages = json.loads(run.finish(State.RETRY).record().messages)
    assert messages[-1]["event"] == "Retry in 3 s: ConnectionError: away"
