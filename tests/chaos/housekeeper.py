"""Fold runs into statistics until killed, or compare the statistics with a recount of the runs.

`python -m tests.chaos.housekeeper fold`, or `compare`.
"""

import json
import sys
import time
from contextlib import suppress
from datetime import timedelta

import django
from django.db import Error, connection, transaction
from django.db.models import Max, Min

django.setup()

from systemtasks.models import (  # noqa: E402 - after the setup
    Period,
    StatisticsChange,
    StatisticsProgress,
    TaskRun,
    TaskStatistics,
)
from systemtasks.statistics import HOUR, by_task, floor, folded_until  # noqa: E402
from systemtasks.storage.folding import fold  # noqa: E402
from tests.systemtasks.storage.test_folding import figures  # noqa: E402


def fold_forever() -> None:
    while True:
        try:
            is_more = fold()
        except Error:  # Postgres is killed, too
            is_more = False
            with suppress(Error):
                connection.close()
        if not is_more:
            time.sleep(0.05)


def compare() -> None:
    """Print what was counted, and whether it is what a recount says, once all hours are over."""
    ends = TaskRun.objects.aggregate(first=Min("sort_timestamp"), last=Max("sort_timestamp"))
    first, end = floor(ends["first"], Period.HOUR), floor(ends["last"], Period.HOUR) + HOUR
    while fold() or (folded_until() or first) < end or StatisticsChange.objects.exists():
        time.sleep(0.05)
    counted = figures(by_task(first, end + timedelta(days=1)))
    with transaction.atomic():
        StatisticsProgress.objects.all().delete()
        recounted = figures(by_task(first, end + timedelta(days=1)))
        transaction.set_rollback(True)
    hours = TaskStatistics.objects.filter(period=Period.HOUR)
    noted = "SELECT last_value, is_called FROM systemtasks_statisticschange_id_seq"
    with connection.cursor() as cursor:
        cursor.execute(noted)
        [(number, is_called)] = cursor.fetchall()
    found = {
        "is_exact": counted == recounted,
        "runs": sum(sum(one["outcomes"].values()) for one in counted.values()),
        "hours": hours.values("start").distinct().count(),
        "late": number if is_called else 0,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    {"fold": fold_forever, "compare": compare}[sys.argv[1]]()
