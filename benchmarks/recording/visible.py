"""From a task's end to its row: seconds, in JSON, as another connection sees them.

`visible NUMBER RATE`: that many tasks, so many a second.
"""

import json
import sys
import time
from datetime import datetime

from django.db import connection

from benchmarks.recording.processes import TIMEOUT
from benchmarks.recording.tasks import noop
from config.celery import app

POLL_INTERVAL = 0.002  # seconds; a row is seen late by half of it


def main(number: str, rate: str) -> None:
    app.set_current()
    delays: list[float] = []
    waiting: set[str] = set()
    begin, left = time.monotonic(), int(number)
    with connection.cursor() as cursor:
        while left or waiting:
            if time.monotonic() - begin > TIMEOUT:
                raise TimeoutError(f"{len(waiting)} rows are not visible")
            if left and time.monotonic() >= begin + (int(number) - left) / float(rate):
                waiting.add(noop.delay(left).id)
                left -= 1
            time.sleep(POLL_INTERVAL)
            cursor.execute(
                "SELECT celery_id, finish_timestamp FROM systemtasks_taskrun "
                "WHERE celery_id = ANY(%s) AND finish_timestamp IS NOT NULL",
                [list(waiting)],
            )
            now = time.time()
            for celery_id, finish in cursor.fetchall():
                waiting.remove(celery_id)
                delays.append(now - datetime.timestamp(finish))
    print(json.dumps(delays))


if __name__ == "__main__":
    main(*sys.argv[1:])
