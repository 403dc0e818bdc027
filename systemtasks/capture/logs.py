"""From `logging` to the messages of the run that logs."""

import logging
from functools import cache, lru_cache
from typing import Any

import orjson
from celery.exceptions import SoftTimeLimitExceeded

from systemtasks.conf import conf
from systemtasks.runs.recorder import Run, current, current_run
from systemtasks.runs.values import describe

# What a record has without any `extra=`, and what Celery's own formatter adds to it.
STANDARD_ATTRIBUTES = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "task_id", "task_name", "color_message"),
}
# structlog renders these itself, and a LogEvent has keys of its own for them.
STRUCTLOG_KEYS = {"event", "level", "log_level", "logger", "logger_name", "timestamp"}


class RunHandler(logging.Handler):
    """Adds each record to the run that logs it; outside a run it does nothing."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Add it without a lock: no thread waits for another one's run."""
        try:
            run = current.get() or current_run()  # nearly always the first, which is quicker
            if run is not None and not _is_chatter(record.name):
                _add(run, record)
        except SoftTimeLimitExceeded:
            raise  # it is the task's, which happens to be here
        except Exception:  # noqa: BLE001 - a task's own objects may raise anything when printed
            self.handleError(record)
        return True


class LastResort(logging.Handler):
    """Prints what logging would print, were there no handler of this app."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand it to `logging.lastResort`, unless the logger has another handler."""
        printer = logging.lastResort
        if printer and record.levelno >= printer.level and not _has_handlers(record.name):
            printer.handle(record)
        return True


_last_resort = LastResort()


def install() -> None:
    """Have the handler see what every logger sees that does not pass its records on.

    Celery's `celery.task` is one of those, and projects configure others. Call it again whenever
    the logging may have been configured anew: it adds nothing twice.
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
    """Whether the root logger still has the handler: no configuration has come in between."""
    return _handler() in logging.root.handlers


@cache
def _handler() -> RunHandler:
    return RunHandler(logging.getLevelNamesMapping()[conf().RECORD_LOG_LEVEL])


def _has_handlers(name: str) -> bool:
    """Return True if what this logger logs comes to a handler that is not of this app."""
    logger = logging.root.manager.loggerDict.get(name)
    found: logging.Logger | None = logger if isinstance(logger, logging.Logger) else logging.root
    while found is not None:
        if any(not isinstance(each, RunHandler | LastResort) for each in found.handlers):
            return True
        found = found.parent if found.propagate else None
    return False


@lru_cache
def _is_chatter(name: str) -> bool:
    """Whether Celery itself says this ("Task … succeeded in …"), or this app."""
    root, _, rest = name.partition(".")
    if root == "celery":
        return not rest.startswith(("task", "redirected"))
    return root in ("kombu", "amqp", "billiard", "systemtasks")


def _add(run: Run, record: logging.LogRecord) -> None:
    attributes: dict[str, Any] = {}
    if not STANDARD_ATTRIBUTES.issuperset(vars(record)):
        attributes = {
            key: value
            for key, value in vars(record).items()
            if key not in STANDARD_ATTRIBUTES and not str(key).startswith("_")
        }
    if said := _structured(record):
        event = str(said["event"])
        attributes |= {k: v for k, v in said.items() if k not in STRUCTLOG_KEYS}
    else:
        event = _text(record, attributes)
    error = record.exc_info[1] if record.exc_info else None
    # Celery logs what a task prints as WARNING, but to print is no reason for a warning.
    level = logging.INFO if record.name == "celery.redirected" else record.levelno
    run.log(level, record.name, event, attributes, error, record.created)


def _text(record: logging.LogRecord, attributes: dict[str, Any]) -> str:
    """The message; of a malformed call the format, while its arguments become an attribute."""
    try:
        return record.getMessage()
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # noqa: BLE001 - a task's own objects may raise anything when printed
        # To report it to logging would print the call's stack, and Celery logs what is printed.
        attributes["args"] = record.args
        said: object = record.msg
        return said if type(said) is str else describe(said, conf().TEXT_LIMIT)


def _structured(record: logging.LogRecord) -> dict[str, Any] | None:
    """The event dictionary of structlog, whose JSONRenderer may have made a text of it; or None."""
    said: object = record.msg
    if isinstance(said, str):
        if record.args or not said.startswith("{"):
            return None
        try:
            said = orjson.loads(said)
        except ValueError:
            return None
    return said if isinstance(said, dict) and "event" in said else None
