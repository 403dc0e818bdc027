"""Add log records to the messages of the run that logs them.

If an earlier handler has formatted the record, its text is used. Otherwise it is formatted here,
without running code of its arguments (see `runs.kinds`).
"""

import logging
from functools import cache, lru_cache
from itertools import islice
from typing import Any

import orjson
from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.conf import conf
from systemtasks.runs.exceptions import ExceptionText, formatted, log_handled, printable
from systemtasks.runs.kinds import is_of, is_plain
from systemtasks.runs.recorder import Run, current, current_run
from systemtasks.runs.records import NAME_LIMIT
from systemtasks.runs.values import ITEM_LIMIT, Printer, describe
from systemtasks.storage.failures import failures

logger = logging.getLogger(__name__)

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
# Keys that structlog adds, for which a LogEvent has keys of its own.
STRUCTLOG_KEYS = {"event", "level", "log_level", "logger", "logger_name", "timestamp"}
PLAIN_LIMIT = 8192  # characters of an argument that is formatted without a check
WIDTH_LIMIT = 1000  # the largest width, in characters, that `%*s` may take from an argument
UNFORMATTED = (TypeError, ValueError, LookupError, OverflowError)
"""The exceptions of formatting a malformed logging call."""


class RunHandler(logging.Handler):
    """Adds each record to the run that logs it. Does nothing outside a run."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Add the record without a lock, so that no thread waits for another one's run."""
        try:
            run = current.get() or current_run()  # the first is faster, and mostly set
            if run is None or run.ended:
                return True
            name = record.name
            if type(name) is not str:
                name = describe(name, NAME_LIMIT)
            if not _is_chatter(name):
                _add(run, name, record)
        except SoftTimeLimitExceeded:
            raise  # it is meant for the task, which this code interrupts
        except Exception:  # noqa: BLE001 - whatever it is, the task goes on
            # Not `handleError`, which would print the record's arguments.
            failures.count("a log record is not recorded")
            log_handled(logger, "What a task has logged is not recorded")
        return True


class LastResort(logging.Handler):
    """Prints what `logging.lastResort` would print if this app had installed no handler."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass the record to `logging.lastResort`, unless the logger has another handler."""
        printer = logging.lastResort
        if printer and record.levelno >= printer.level and not _has_handlers(record.name):
            printer.handle(record)
        return True


_last_resort = LastResort()


def install() -> None:
    """Add the handler to the root logger and to each logger that does not propagate.

    Celery's `celery.task` is one of those, and projects configure others. Call this again whenever
    logging may have been reconfigured. It adds no handler twice.
    """
    handler = _handler()
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger):
            continue
        passes_on = logger.propagate and logger.parent is not None
        if not passes_on and handler not in logger.handlers:
            if not logger.handlers:
                logger.addHandler(_last_resort)
            logger.addHandler(handler)


def are_captured() -> bool:
    """Return True if the root logger still has the handler, so nothing has reconfigured logging."""
    return _handler() in logging.root.handlers


@cache
def _handler() -> RunHandler:
    return RunHandler(logging.getLevelNamesMapping()[conf().RECORD_LOG_LEVEL])


def _has_handlers(name: str) -> bool:
    """Return True if records of this logger reach a handler that is not this app's."""
    logger = logging.root.manager.loggerDict.get(name)
    found: logging.Logger | None = logger if isinstance(logger, logging.Logger) else logging.root
    while found is not None:
        if any(not isinstance(each, RunHandler | LastResort) for each in found.handlers):
            return True
        found = found.parent if found.propagate else None
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
    elif type(printed := fields.get("message")) is str:
        text = printed  # made by a `logging.Formatter` for an earlier handler
    else:
        text = _text(message, fields["args"], attributes)
    error = None if fields["exc_info"] is None else _exception(fields)
    level, created = fields["levelno"], fields["created"]
    # Celery logs what a task prints as WARNING, but printing is no reason for a warning. A record
    # that a project has made itself may have a level of any type.
    if name == "celery.redirected" or type(level) is not int:
        level = logging.INFO
    when = created if type(created) is float else None
    run.log(level, name, text, attributes, error, when)


def _extra(fields: dict[str, Any], last: str | None) -> dict[str, Any]:
    """Return the attributes given by `extra=`, which come after `last`, logging's own last one.

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
    """Return the same if keys are not texts. Hashing such a key could run code of its own."""
    named = (
        (key if type(key) is str else describe(key, NAME_LIMIT), value)
        for key, value in fields.items()
    )
    return {name: v for name, v in named if name not in STANDARD_ATTRIBUTES and name[:1] != "_"}


def _text(
    message: Any,  # noqa: ANN401 - whatever is logged
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
        for key, value in islice(dict.items(args), ITEM_LIMIT):
            if type(key) is str:
                self[key] = printable(value, limit)

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
