"""A run is on record before it ends: sent, running, and when its worker is gone."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from config.celery import app
from systemtasks.admin_parts.family import family_of
from systemtasks.admin_parts.run_page import progress_of
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import Status
from tests import processes
from tests.processes import ROOT
from tests.waiting import eventually
from tests.workers import Worker, environment

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", "--concurrency", "2", LEASE_SECONDS="2") as running:
        yield running


def one(celery_id: str, **values: object) -> TaskRun:
    """Wait until the run with this id has these values, and return it."""
    found = TaskRun.objects.filter(celery_id=celery_id, **values)
    assert eventually(found.exists), list(TaskRun.objects.filter(celery_id=celery_id).values())
    return found.get()


def events(run: TaskRun) -> list[str]:
    return [message["event"] for message in run.messages]


def send_from_another_process(name: str, **options: object) -> str:
    """Send a task from a process that ends at once. Return its Celery id."""
    code = f"from config.celery import app; print(app.send_task({name!r}, **{options!r}).id)"
    command = [sys.executable, "-c", f"import django; django.setup(); {code}"]
    variables = {**environment(), "DJANGO_SETTINGS_MODULE": "config.settings"}
    return subprocess.check_output(command, cwd=ROOT, env=variables, text=True).strip()


def test_sent_task_is_on_record_before_any_worker_takes_it(transactional_db: None) -> None:
    celery_id = send_from_another_process(
        "tests.succeed", args=[7], queue="nobody-listens", countdown=60
    )
    run = TaskRun.objects.get(celery_id=celery_id)

    assert (run.state, run.status, run.attempt) == ("queued", "unknown", 1)
    # That process does not know the task, and so not which arguments are secrets.
    assert (run.queue, run.args, run.kwargs) == ("nobody-listens", None, {})
    assert run.sender.startswith("gen")
    assert run.root_id == ""  # its own
    assert run.sent_timestamp
    assert run.eta_timestamp
    assert 55 < (run.eta_timestamp - run.sent_timestamp).total_seconds() < 65
    task = SystemTask.objects.get()
    assert (task.name, task.status) == ("tests.succeed", Status.UNKNOWN)
    assert [message["event"] for message in task.messages] == ["Task has not been run yet."]


def test_sent_task_that_runs_is_one_run(worker: Worker) -> None:
    celery_id = send_from_another_process("tests.succeed", args=[7])
    run = one(celery_id, state="success")

    assert run.wait is not None
    assert (run.args, run.arguments_intact) == ([7], True)
    assert run.sender.startswith("gen")
    assert TaskRun.objects.count() == 1
    assert SystemTask.objects.get().status == "successful"


def test_eager_run_in_a_process_of_any_kind_has_its_messages(transactional_db: None) -> None:
    code = "import django, logging; django.setup(); logging.basicConfig(level=logging.INFO); "
    code += "from tests import tasks; print(tasks.succeed.apply((7,)).id)"
    variables = {**environment(), "DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-c", code]
    celery_id = subprocess.check_output(command, cwd=ROOT, env=variables, text=True).splitlines()[
        -1
    ]

    assert events(TaskRun.objects.get(celery_id=celery_id)) == [
        "Hello 7",
        "Hello from another logger",
    ]


def test_run_knows_the_run_that_sent_it(worker: Worker) -> None:
    parent = app.send_task("tests.parent")
    assert eventually(TaskRun.objects.filter(parent_id=parent.id, state="success").exists)

    child = TaskRun.objects.get(parent_id=parent.id)
    assert (child.system_task.name, child.root_id) == ("tests.succeed", parent.id)


def test_progress_that_a_task_stores_is_on_record_while_it_runs(worker: Worker) -> None:
    celery_id = str(app.send_task("tests.count", args=[60]).id)
    run = one(celery_id, state="running", messages__0__event="7 of 10 done (70%)")
    progress = progress_of(run)
    assert progress is not None
    assert (progress.done, progress.total) == (7, 10)
    app.control.revoke(celery_id, terminate=True)
    one(celery_id, state="revoked")


def test_chord_is_in_the_family_of_each_of_its_runs(transactional_db: None, tmp_path: Path) -> None:
    backend = str(settings.CELERY_BROKER_URL)
    with Worker(tmp_path / "worker.log", "--pool", "solo", CELERY_RESULT_BACKEND=backend):
        app.send_task("tests.send_a_chord")
        ended = TaskRun.objects.filter(system_task__name="tests.add_up", state="success")
        assert eventually(ended.exists)
        parts = TaskRun.objects.filter(system_task__name="tests.succeed", state="success")
        assert eventually(lambda: parts.count() == 3)
    callback, header = ended.get(), {*parts}
    for run in header:
        family = family_of(run)
        assert ({*family.group}, family.callback) == (header, callback)
    family = family_of(callback)
    assert ({*family.group}, family.is_callback) == (header, True)


def test_retry_is_queued_as_the_next_attempt(worker: Worker) -> None:
    celery_id = str(app.send_task("tests.retry_later").id)
    first = one(celery_id, attempt=1, state="retry")
    second = one(celery_id, attempt=2, state="queued")

    assert first.finish_timestamp
    assert second.eta_timestamp
    assert 3500 < (second.eta_timestamp - first.finish_timestamp).total_seconds() < 3700


def test_run_in_progress_is_on_record_with_what_it_has_said(worker: Worker) -> None:
    celery_id = str(app.send_task("tests.sleep", args=[60]).id)
    run = one(celery_id, state="running")

    assert (run.status, run.finish_timestamp, run.duration) == ("unknown", None, None)
    assert run.worker.startswith("celery@")
    assert eventually(lambda: events(TaskRun.objects.get(pk=run.pk)) == ["Sleeping"])
    app.control.revoke(celery_id, terminate=True)
    ended = one(celery_id, state="revoked")
    assert (events(ended)[0], ended.start_timestamp) == ("Sleeping", run.start_timestamp)


def test_run_of_a_worker_that_is_gone_is_ended_by_another(worker: Worker, tmp_path: Path) -> None:
    celery_id = str(app.send_task("tests.sleep", args=[60]).id)
    running = one(celery_id, state="running", messages__0__event="Sleeping")
    worker.signal_all(signal.SIGKILL)
    with Worker(tmp_path / "next.log", "--pool", "solo", LEASE_SECONDS="2"):
        run = one(celery_id, state="failure")

        assert run.exception.startswith(f"The worker {running.worker} is gone")
        assert events(run) == ["Sleeping", run.exception]
        assert run.messages[-1]["attributes"]["worker"] == running.worker
        assert run.seen_timestamp
        assert run.seen_timestamp.strftime("%Y-%m-%dT%H:%M:%SZ") in run.exception
        assert SystemTask.objects.get(name="tests.sleep").status == "error"


def test_run_of_a_worker_that_was_only_away_is_put_right(worker: Worker, tmp_path: Path) -> None:
    celery_id = str(app.send_task("tests.sleep", args=[15]).id)
    one(celery_id, state="running", messages__0__event="Sleeping")
    worker.signal_all(signal.SIGSTOP)
    with Worker(tmp_path / "next.log", "--pool", "solo", LEASE_SECONDS="2"):
        one(celery_id, state="failure")
        worker.signal_all(signal.SIGCONT)
        assert events(one(celery_id, state="running")) == ["Sleeping"]
        run = one(celery_id, state="success")

    assert (events(run), run.exception, run.lease) == (["Sleeping"], "", None)
    assert SystemTask.objects.get(name="tests.sleep").status == "successful"


def test_child_that_was_lost_and_whose_message_was_put_back_ends_too(
    worker: Worker, tmp_path: Path
) -> None:
    """Celery sends no signal for the first one, and the worker lives on."""
    celery_id = str(app.send_task("tests.lose_child", args=[str(tmp_path / "marker"), 2]).id)
    first = one(celery_id, number=1, state="failure")
    second = one(celery_id, number=2, state="success")

    assert "that ran it is gone" in first.exception
    assert (first.lease, first.executions) == (None, 2)
    assert second.redelivered
    assert second.system_task.status == "successful"


def test_task_reports_on_itself(worker: Worker) -> None:
    run = one(str(app.send_task("tests.report", args=["ldap"]).id), state="success")

    assert events(run) == ["Begun", "4 of 4 done (100%)"]
    assert (run.status, run.system_task.full_name) == ("warning", "tests.report:ldap")
    assert list(SystemTask.objects.filter(name="tests.report")) == [run.system_task]


def test_scheduled_task_is_known_before_it_runs(transactional_db: None, tmp_path: Path) -> None:
    with Worker(tmp_path / "worker.log", "--pool", "solo", DEMO_TASKS="true"):
        assert eventually(lambda: SystemTask.objects.filter(name__startswith="demo.").count() == 5)

    report = SystemTask.objects.get(name="demo.nightly_report")
    assert (report.status, report.expiring) == ("unknown", False)
    assert report.description == "Add up the day's figures, step by step."


def test_beat_makes_its_schedule_known(transactional_db: None, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery", "--app", "config", "beat"]
    command += ["--schedule", str(tmp_path / "schedule"), "--pidfile", ""]
    variables = {**environment(), "DEMO_TASKS": "true"}
    beat = processes.start(command, tmp_path / "beat.log", variables)
    try:
        assert eventually(lambda: SystemTask.objects.filter(name__startswith="demo.").count() == 5)
    finally:
        processes.stop(beat)


def test_message_that_cannot_be_decoded_is_on_record(worker: Worker) -> None:
    celery_id = "undecodable-1"
    with app.connection_for_write() as broker:
        producer = broker.Producer()
        headers = {"task": "tests.succeed", "id": celery_id, "lang": "py", "retries": 0}
        producer.publish(
            b"{not json",
            routing_key="systemtasks",
            exchange="systemtasks",
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
        )
    run = one(celery_id, state="rejected")

    assert (run.status, run.system_task.name) == ("warning", "tests.succeed")
    assert "Error" in run.exception


def test_message_of_somebody_else_is_on_record(worker: Worker) -> None:
    with app.connection_for_write() as broker:
        broker.Producer().publish(
            {"hello": "world"}, routing_key="systemtasks", exchange="systemtasks"
        )

    assert eventually(TaskRun.objects.filter(state="rejected").exists)
    assert TaskRun.objects.get().system_task.name == "(a message without a task's name)"
