"""With Sentry in the worker, as most projects have it, tasks and their records are the same."""

from pathlib import Path

import pytest

from tests.workers import POOLS, Worker, outcome, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("when", ["import", "child"])
def test_threads_run_and_log_to_their_runs(
    transactional_db: None, tmp_path: Path, when: str
) -> None:
    include = "tests.tasks,tests.with_sentry"
    with Worker(tmp_path / "log", *POOLS["prefork"], include=include, SENTRY=when) as worker:
        threads = [send("tests.start_threads", number) for number in range(4)]
        coroutines = [send("tests.go_to_thread", number) for number in range(4)]

        for number, celery_id in enumerate(threads):
            run = outcome(worker, celery_id)
            assert run.status == "successful", run.messages
            assert [message["event"] for message in run.messages] == [
                f"Thread of {number}",
                f"Pool of {number}",
            ]
        for number, celery_id in enumerate(coroutines):
            run = outcome(worker, celery_id)
            assert run.status == "successful", run.messages
            assert [message["event"] for message in run.messages] == [
                f"Coroutine's thread of {number}"
            ]
    assert "Traceback" not in worker.log.read_text()
    assert "writer of task runs" not in worker.log.read_text()
