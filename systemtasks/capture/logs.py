"""Add log records to the messages of the run that logs them.

What is recorded depends on RECORD_LOG_LEVEL alone. The levels of the worker, the root logger and
handlers say what the console shows, and it shows the same with and without this app.

If an earlier handler has formatted the record, its text is used. Otherwise it is formatted here,
without running code of its arguments (see `runs.kinds`).
"""

import inspect
import logging
import sys
import threading
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from itertools import islice
from types import FrameType
from typing import Any

import orjson
from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.exceptions import ExceptionText, formatted, log_handled, printable
from systemtasks.runs.kinds import is_of, is_plain
from systemtasks.runs.recorder import Run, current, current_run
from systemtasks.runs.records import NAME_LIMIT
from systemtasks.runs.secret_names import hides
from systemtasks.runs.secret_texts import MASK
from systemtasks.runs.values import ITEM_LIMIT, Printer, describe
from systemtasks.storage.failures import failures

logger = own_logger(__name__)

PLAIN_ATTRIBUTES = tuple(vars(logging.makeLogRecord({})))
"""The attributes of a new record. Those given by `extra=` come after them."""
LAST_ATTRIBUTE = PLAIN_ATTRIBUTES[-1]
# The attributes that are not from `extra=`: logging's own, and those added by formatters.
STANDARD_ATTRIBUTES = {
    *PLAIN_ATTRIBUTES,
    "message",
    "asctime",
    "taskName",
    "task_id",
    "task_name",
    "color_message",
}
# Keys that structlog adds. A LogEvent has keys of its own for them.
STRUCTLOG_KEYS = {"event", "level", "log_level", "logger", "logger_name", "timestamp"}
PLAIN_LIMIT = 8192  # characters of an argument that is formatted without a check
WIDTH_LIMIT = 1000  # the largest width, in characters, that `%*s` may take from an argument
UNFORMATTED = (TypeError, ValueError, LookupError, OverflowError)
"""The exceptions of formatting a malformed logging call."""
LEVEL_METHODS = {
    getattr(logging.Logger, name).__code__
    for name in ("debug", "info", "warning", "error", "critical", "log")
}
"""The code of the methods that ask `isEnabledFor`. All have `msg`, `args` and `kwargs`."""

IS_ENABLED = inspect.unwrap(logging.Logger.isEnabledFor).__code__
CALL_DEPTH = 5
"""Frames between `Logger._log` and `Logger.handle`: more if a project's own class overrides it."""

_originals: dict[str, Callable[..., Any]] = {}
"""The methods of Logger that are replaced, by their names. Empty if none are."""
_lock = threading.Lock()


def install() -> None:
    """Add to each run what it logs at RECORD_LOG_LEVEL or above. Repeated calls do nothing.

    This replaces methods of Logger, and adds no handler. Levels, handlers and a new configuration
    therefore do not keep a record from its run, and no handler gets more records than before.
    """
    with _lock:
        if not _originals:
            methods: list[Callable[..., Any]] = [
                isEnabledFor,
                getEffectiveLevel,
                handle,
                callHandlers,
            ]
            names = [method.__name__ for method in methods]
            _originals.update({name: getattr(logging.Logger, name) for name in names})
            for name, method in zip(names, methods, strict=True):
                setattr(logging.Logger, name, wraps(_originals[name])(method))


def are_captured() -> bool:
    """Return True if `install` has been called."""
    return bool(_originals)


def isEnabledFor(self: logging.Logger, level: int) -> bool:  # noqa: N802 - logging's own name
    """Return True if the logger logs at this level.

    If only the run records this level, the message is added to it at once where a method of Logger
    asks, such as `info`, and nothing else happens. Other code gets True, so that it logs:
    LoggerAdapter, structlog, or a task that asks first.
    """
    if _originals["isEnabledFor"](self, level):
        return True
    if type(level) is not int or level < record_level():
        return False
    if not _is_recorded(self, level):
        return False
    caller = sys._getframe(1)
    if caller.f_code not in LEVEL_METHODS:
        return True
    _add_call(self, level, caller)
    return False


def getEffectiveLevel(self: logging.Logger) -> int:  # noqa: N802
    """Return the lowest level that the logger logs, or that the run records.

    structlog asks this. Logging itself gets the logger's own level.
    """
    level: int = _originals["getEffectiveLevel"](self)
    lowest = record_level()
    if level <= lowest or sys._getframe(1).f_code is IS_ENABLED:
        return level
    return lowest if _is_recorded(self, lowest) else level


def handle(self: logging.Logger, record: logging.LogRecord) -> None:
    """Handle the record. If it was only made for the run, only add it to the run."""
    level = record.levelno
    if (
        (current.get() or current_run()) is None
        or type(level) is not int
        or _originals["isEnabledFor"](self, level)
        or not _has_asked()
    ):
        _originals["handle"](self, record)
    else:
        add(record, self)


def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802
    """Pass the record to the handlers, and then add it to the run with the text that they made."""
    _originals["callHandlers"](self, record)
    add(record)


def add(record: logging.LogRecord, unfiltered: logging.Logger | None = None) -> None:
    """Add the record to the run that logs it. Do nothing outside a run, and never raise.

    It takes no lock, so that no thread waits for another one's run. `unfiltered` is a logger whose
    filters have not seen the record.
    """
    try:
        run = current.get() or current_run()
        if run is None or run.ended:
            return
        if type(record.levelno) is int and record.levelno < record_level():
            return
        if unfiltered is not None:
            kept = unfiltered.filter(record)
            if not kept:
                return
            record = kept if isinstance(kept, logging.LogRecord) else record
        name = record.name
        if type(name) is not str:
            name = describe(name, NAME_LIMIT)
        if not _is_chatter(name):
            _add(run, name, record)
    except SoftTimeLimitExceeded:
        raise  # it is meant for the task, which this code interrupts
    except Exception:  # noqa: BLE001 - whatever it is, the task goes on
        # Not `Handler.handleError`, which would print the record's arguments.
        failures.count("a log record is not recorded")
        log_handled(logger, "What a task has logged is not recorded")


def _add_call(logger: logging.Logger, level: int, caller: FrameType) -> None:
    """Add to the run what one of LEVEL_METHODS, whose frame this is, was called with.

    `Logger._log` is not called: it raises for arguments that do no harm while a level is off.
    """
    given = caller.f_locals
    message, args, options = given["msg"], given["args"], given["kwargs"]
    if len(args) == 1 and is_of(args[0], dict) and dict.__len__(args[0]):
        args = args[0]  # as in LogRecord
    error = options.get("exc_info")
    if is_of(error, BaseException):
        error = type(error), error, None
    elif type(error) is not tuple:
        error = sys.exc_info() if error is True or error == 1 else None
    record = logging.LogRecord(logger.name, level, "", 0, message, (), error)
    record.args = args
    if is_of(extra := options.get("extra"), dict):
        fields = vars(record)
        fields.update({key: extra[key] for key in dict.keys(extra) if key not in fields})
    add(record, logger)


def is_passing_on(frame: FrameType | None) -> bool:
    """Return True if code of this frame runs because a record is passed to logging's handlers."""
    while frame is not None:
        if frame.f_code is callHandlers.__code__:
            return True
        frame = frame.f_back
    return False


@cache
def record_level() -> int:
    """Return RECORD_LOG_LEVEL as a number."""
    return logging.getLevelNamesMapping()[conf().RECORD_LOG_LEVEL]


def _is_recorded(logger: logging.Logger, level: int) -> bool:
    """Return True if records that this code logs there at this level are added to a run."""
    run = current.get() or current_run()  # the first is faster, and mostly set
    return not (
        run is None or run.ended or _is_chatter(logger.name) or _is_kept_quiet(logger, level)
    )


def _is_kept_quiet(logger: logging.Logger, level: int) -> bool:
    """Return True if a level below the root's keeps such records out, and not only off the console.

    The levels of the root, and of loggers with handlers of their own, say what is shown. The level
    of a logger without handlers says what is of interest: projects set it for talkative libraries,
    and SQLAlchemy for its own SQL.
    """
    found: logging.Logger | None = logger
    while found is not None and found.parent is not None:
        if found.level:
            return level < found.level and not found.handlers
        found = found.parent
    return False


def _has_asked() -> bool:
    """Return True if `handle` was called for code that has asked `isEnabledFor` before.

    That is `Logger._log`. Any other caller means the handlers to get the record.
    """
    frame: FrameType | None = sys._getframe(2)
    for _ in range(CALL_DEPTH):
        if frame is None:
            return False
        if frame.f_code is logging.Logger._log.__code__:
            return True
        frame = frame.f_back
    return False


@lru_cache
def _is_chatter(name: str) -> bool:
    """Return True for a logger of Celery itself ("Task … succeeded in …") or of this app."""
    root, _, rest = name.partition(".")
    if root == "celery":
        return not rest.startswith(("task", "redirected"))
    return root in ("kombu", "amqp", "billiard", "systemtasks")


def _add(run: Run, name: str, record: logging.LogRecord) -> None:
    fields = vars(record)
    # A project's own record class may set attributes before logging sets its own.
    attributes = _extra(fields, LAST_ATTRIBUTE if type(record) is logging.LogRecord else None)
    message = fields["msg"]
    if (type(message) is not str or message[:1] == "{") and (event := _structured(fields)):
        text = formatted(event["event"], conf().TEXT_LIMIT)
        attributes |= {k: v for k, v in event.items() if k not in STRUCTLOG_KEYS}
    elif type(printed := fields.get("message")) is str and (
        type(args := fields["args"]) is tuple or not _names_a_secret(args)
    ):
        text = printed  # made by a `logging.Formatter` for an earlier handler
    else:
        text = _text(message, fields["args"], attributes)
    error = None if fields["exc_info"] is None else _exception(fields)
    level, created = fields["levelno"], fields["created"]
    # Celery logs what a task prints as WARNING, but printing is not a reason for a warning. A
    # record that a project has made itself may have a level of any type.
    if name == "celery.redirected" or type(level) is not int:
        level = logging.INFO
    when = created if type(created) is float else None
    run.log(level, name, text, attributes, error, when)


def _extra(fields: dict[str, Any], last: str | None) -> dict[str, Any]:
    """Return the attributes given by `extra=`. They follow `last`, the last standard attribute.

    With None for `last`, all attributes are searched.
    """
    added: dict[str, Any] = {}
    for key in reversed(fields):
        if key is last:
            break
        if type(key) is not str:
            return _odd_extra(fields)
        if key not in STANDARD_ATTRIBUTES and key[:1] != "_":
            added[key] = fields[key]
    return added


def _odd_extra(fields: dict[Any, Any]) -> dict[str, Any]:
    """Do the same when keys are not strings. Hashing such a key could run code of its own."""
    named = (
        (key if type(key) is str else describe(key, NAME_LIMIT), value)
        for key, value in fields.items()
    )
    return {name: v for name, v in named if name not in STANDARD_ATTRIBUTES and name[:1] != "_"}


def _text(
    message: Any,  # noqa: ANN401 - any object can be logged
    args: Any,  # noqa: ANN401
    attributes: dict[str, Any],
) -> str:
    """Return the formatted message.

    For a malformed call, return the format, and add the arguments to the attributes.
    """
    given = args
    if type(message) is not str or not _are_plain(args):
        limit = conf().TEXT_LIMIT
        message, args = formatted(message, limit), _printable(args, limit)
    if args is None or args == ():
        return message  # type: ignore[no-any-return]
    try:
        if "*" in message:
            _check_widths(args)
        return message % args  # type: ignore[no-any-return]
    except UNFORMATTED:
        # Reporting it to logging would print the stack, and Celery logs what is printed.
        attributes["args"] = given
        return message  # type: ignore[no-any-return]


def _names_a_secret(args: object) -> bool:
    """Return True if these arguments of a message are by name, and one of them is masked."""
    return (
        is_of(args, dict)
        and conf().MASK_TEXTS
        and any(type(key) is str and hides(key) for key in islice(dict.keys(args), ITEM_LIMIT))
    )


def _are_plain(args: object) -> bool:
    if type(args) is not tuple:
        return args is None
    if len(args) > ITEM_LIMIT:
        return False
    for one in args:  # noqa: SIM110 - a generator takes longer
        if not is_plain(one, PLAIN_LIMIT):
            return False
    return True


def _printable(args: object, limit: int) -> Any:  # noqa: ANN401 - what is formatted
    """Return a message's arguments, replaced where formatting one would run its own code."""
    if args is None:
        return None
    if is_of(args, tuple):
        return tuple(printable(one, limit) for one in islice(tuple.__iter__(args), ITEM_LIMIT))
    if is_of(args, dict):
        return _Named(args, limit)
    return (printable(args, limit),)


class _Named(dict[str, object]):
    """A message's arguments given as a dictionary: used by name, or printed as a whole."""

    def __init__(self, args: dict[Any, Any], limit: int) -> None:
        self._args, self._limit = args, limit
        masks = conf().MASK_TEXTS
        for key, value in islice(dict.items(args), ITEM_LIMIT):
            if type(key) is str:
                is_secret = masks and value is not None and hides(key)
                self[key] = MASK if is_secret else printable(value, limit)

    def __repr__(self) -> str:
        return str(Printer(self._limit, conf().MASK_TEXTS).clean(self._args))


def _check_widths(args: object) -> None:
    """Raise ValueError if an argument could pad the message to an excessive width."""
    if type(args) is tuple and any(type(one) is int and abs(one) > WIDTH_LIMIT for one in args):
        raise ValueError("too wide")


def _exception(fields: dict[str, Any]) -> ExceptionText | None:
    info = fields["exc_info"]
    if type(info) is not tuple or len(info) != 3 or not is_of(error := info[1], BaseException):
        return None
    return ExceptionText.of(error, conf().TEXT_LIMIT, fields.get("exc_text"))


def _structured(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return structlog's event dictionary, decoded if its JSONRenderer has encoded it, or None."""
    message, args = fields["msg"], fields["args"]
    if is_of(message, str):
        text = str.__str__(message)
        is_bare = args is None or (type(args) is tuple and not args)
        if not is_bare or not text.startswith("{") or len(text) > conf().MESSAGES_LIMIT:
            return None
        try:
            message = orjson.loads(text)
        except ValueError:
            return None
    if not is_of(message, dict):
        return None
    event: dict[str, Any] = {}
    for number, (key, value) in enumerate(dict.items(message)):
        if number == ITEM_LIMIT:
            event["…"] = f"({dict.__len__(message) - number} more)"
            break
        event[key if type(key) is str else describe(key, NAME_LIMIT)] = value
    return event if "event" in event else None
