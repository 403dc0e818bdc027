"""Workers that use a pool of connections to Postgres. Their children end often."""

from pathlib import Path

import pytest

from tests.workers import POOLS, Worker, outcome, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_pool_that_celery_closes_keeps_no_run_from_its_row(tmp_path: Path, pool: str) -> None:
    include, options = "tests.tasks,tests.pooled", ("--max-tasks-per-child", "2")
    with Worker(tmp_path / "log", *POOLS[pool], *options, include=include) as worker:
        for celery_id in [send("tests.succeed", number) for number in range(12)]:
            outcome(worker, celery_id)
        worker.stop()
    log = worker.log.read_text()
    assert "Task runs" not in log, log
    assert "pool" not in log.partition(" ready.")[2], log
