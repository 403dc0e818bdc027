"""Record how many runs were dropped because too many waited for the database."""

import logging
import time
from datetime import UTC, datetime

from systemtasks.conf import conf
from systemtasks.ids import new_id
from systemtasks.runs.messages import log_events
from systemtasks.runs.records import RunRecord
from systemtasks.states import State

NAME = "systemtasks.writer"
"""The name of the task whose runs report dropped runs. Clients rely on it."""


def record_of_dropped(number: int) -> RunRecord:
    """Return the record which reports that `number` runs were dropped."""
    now, keep = time.time(), conf().expires_after
    moment = datetime.fromtimestamp(now, UTC)
    event = f"{number} task runs are not recorded: too many waited for the database"
    execution = new_id()
    return RunRecord(
        name=NAME,
        id=execution,
        execution=execution,
        description="Writes the record of task runs.",
        celery_id=f"dropped-{execution}",
        state=State.FAILURE,
        status=State.FAILURE.outcome.status,
        start_timestamp=moment,
        finish_timestamp=moment,
        duration=0.0,
        exception=event,
        messages=log_events([(now, logging.ERROR, NAME, event, {})]),
        expires=None if keep is None else moment + keep,
    )
