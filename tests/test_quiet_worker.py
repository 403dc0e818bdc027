"""Runs in workers that show little, configure logging again or poll for chords."""

from pathlib import Path

import pytest

from systemtasks.models import SystemTask, TaskRun
from tests.waiting import eventually
from tests.workers import POOLS, Worker, outcome, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
INCLUDE = "tests.tasks,tests.quiet"


def test_what_a_worker_does_not_show_is_recorded_and_not_shown(tmp_path: Path) -> None:
    with Worker(tmp_path / "log", *POOLS["prefork"], include=INCLUDE) as worker:
        run = outcome(worker, send("tests.succeed", 7))
        assert [message["event"] for message in run.messages] == [
            *("Hello 7", "Hello from another logger", "Hello from print"),
        ]
        run = outcome(worker, send("tests.configure_anew"))
        assert [message["event"] for message in run.messages] == ["Before", "After"]
        assert run.status == "warning"
    shown = worker.log.read_text()
    assert "Hello" not in shown
    assert "Before" not in shown


def test_polling_for_a_chord_is_one_successful_run(tmp_path: Path) -> None:
    results = tmp_path / "results"  # which cannot be counted, so that a task polls for them
    results.mkdir()
    url = f"file://{results}"
    with Worker(tmp_path / "log", *POOLS["threads"], include=INCLUDE, RESULTS=url) as worker:
        send("tests.send_chord")
        ended = TaskRun.objects.filter(state="success", system_task__name="tests.end_of_chord")
        unlock = TaskRun.objects.filter(system_task__name="celery.chord_unlock")
        assert eventually(lambda: ended.exists() and unlock.exists()), worker.log.read_text()

    assert worker.log.read_text().count("celery.chord_unlock") > 2, worker.log.read_text()
    assert [(run.state, run.status) for run in unlock] == [("success", "successful")]
    assert SystemTask.objects.get(name="celery.chord_unlock").status == "successful"
