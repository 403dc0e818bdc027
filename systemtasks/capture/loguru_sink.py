"""Add messages of Loguru, which does not use `logging`, to the run that logs them."""

import sys
from typing import Any

from systemtasks.capture.guard import never_raising
from systemtasks.capture.logs import is_passing_on, record_level
from systemtasks.conf import conf
from systemtasks.runs.exceptions import ExceptionText, formatted
from systemtasks.runs.kinds import is_of
from systemtasks.runs.recorder import current_run


@never_raising
def loguru_sink(message: Any) -> None:  # noqa: ANN401 - Loguru may not be installed
    """Add a message of Loguru's to this run: `logger.add(loguru_sink, format="{message}")`.

    Do nothing outside a run, below RECORD_LOG_LEVEL, and for a message that comes from `logging`,
    which the run has already. Loguru must call this in the thread that logs: not with `enqueue`.
    """
    record = message.record
    level, run = record["level"].no, current_run()
    if run is None or level < record_level() or is_passing_on(sys._getframe(1)):
        return
    limit, error = conf().TEXT_LIMIT, getattr(record["exception"], "value", None)
    text = ExceptionText.of(error, limit) if is_of(error, BaseException) else None
    event = formatted(record["message"], limit)
    run.log(level, str(record["name"]), event, record["extra"], text, record["time"].timestamp())


def is_missing() -> bool:
    """Return True if Loguru is in use, and none of its sinks passes on a run's messages."""
    loguru = sys.modules.get("loguru")
    # Only the text of its logger names the sinks. Handlers of logging, whose text is such as
    # `<StreamHandler (NOTSET)>`, may pass on what they get.
    sinks = repr(getattr(loguru, "logger", ""))
    return "sink=" in sinks and "loguru_sink" not in sinks and "Handler" not in sinks
