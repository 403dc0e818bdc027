"""The benchmark of recording runs and prints every figure. The values are not tested."""

import pytest

from tests.benchmarks.tables import figures

ROWS = """
throughput: nothing
throughput: System Tasks
throughput: django-celery-results
throughput: django-celery-results, connections kept
throughput: events, as Flower needs them
throughput: one update_or_create a task
added by before_task_publish
added by task_received
added by task_prerun
added by a logged line
added by task_postrun
added by task_failure
added to a task in its own thread
runs the writer writes a second
memory of 10,000 pending runs
from a task's end to its row, p50
from a task's end to its row, p99
"""

pytestmark = pytest.mark.slow


def test_table_has_every_figure() -> None:
    found = figures("recording")
    assert set(ROWS.strip().splitlines()) <= found.keys()
    assert all(found.values())
