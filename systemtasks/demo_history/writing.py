"""Write the history, as the recorder and its housekeeping would have left it."""

import time
from datetime import datetime, timedelta

from systemtasks.conf import conf
from systemtasks.demo_history.making import History
from systemtasks.models import Period, ScheduleEntry, SystemTask, TaskRun
from systemtasks.statistics import floor, folded_until
from systemtasks.storage import folding, partitions, rows
from systemtasks.storage.database import execute

BATCH = 1000
LONGEST_WAIT = 10.0
"""Seconds for which the transactions of others may delay the statistics."""


def write(history: History) -> None:
    """Write the tasks, the runs and the entries, the statistics and the texts for the search.

    Tasks and entries that are there already are changed.
    """
    first, last = history.begin.date(), history.now.date()
    partitions.make([first + timedelta(days=n) for n in range((last - first).days + 1)])
    # The hours are counted before they have runs. So these runs are late changes of them, which are
    # added thousands at once: 700 hours would be counted one by one.
    _count_hours(floor(history.now - folding.MARGIN, Period.HOUR))
    alias = conf().DATABASE
    SystemTask.objects.using(alias).bulk_create(
        history.tasks.values(),
        update_conflicts=True,
        unique_fields=["uuid"],
        update_fields=[
            "description", "start_timestamp", "finish_timestamp", "duration", "status", "messages",
            "expires", "execution", "sort_timestamp",
        ],
    )  # fmt: skip
    TaskRun.objects.using(alias).bulk_create(history.runs, batch_size=BATCH)
    ScheduleEntry.objects.using(alias).bulk_create(
        history.entries,
        update_conflicts=True,
        unique_fields=["app", "entry"],
        update_fields=["words", "next_due", "last_sent", "enabled", "seen_timestamp"],
    )
    folding.fold_all()
    while rows.write_search_texts(BATCH):
        pass
    execute("ANALYZE systemtasks_taskrun")


def _count_hours(until: datetime) -> None:
    """Count the hours before that time. Each transaction that is open has to end first."""
    deadline = time.monotonic() + LONGEST_WAIT
    folding.fold_all()
    while ((done := folded_until()) is None or done < until) and time.monotonic() < deadline:
        time.sleep(0.1)
        folding.fold_all()
