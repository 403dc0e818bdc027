"""A run that was sent and never starts ends as lost, and is corrected if it starts after all."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import RunRecord
from systemtasks.states import State, Status
from systemtasks.storage import orphans, rows
from systemtasks.storage.orphans import Reaper
from systemtasks.storage.retention import delete_expired
from tests.systemtasks.entries import uuid_of
from tests.systemtasks.storage.test_leases import Clock

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _no_known_tasks() -> None:
    rows.forget()


def record(celery_id: str = "lost", ago: timedelta = 3 * DAY, **fields: Any) -> RunRecord:
    sent = NOW - ago
    defaults = {"sent_timestamp": sent, "queue": "mail", "expires": sent + 30 * DAY}
    defaults["id"] = uuid_of(celery_id)
    return RunRecord("shop.mail", celery_id=celery_id, **{**defaults, **fields})


def started(celery_id: str, start: datetime, **fields: Any) -> RunRecord:
    execution = uuid_of(f"execution of {celery_id}")
    fields = {"execution": execution, **fields}
    return record(celery_id, state=State.RUNNING, start_timestamp=start, **fields)


def ended(celery_id: str, start: datetime, **fields: Any) -> RunRecord:
    end = {"finish_timestamp": start + timedelta(seconds=1), "duration": 1.0}
    fields = {"execution": uuid_of(f"execution of {celery_id}"), **fields}
    status = {"state": State.SUCCESS, "status": Status.SUCCESSFUL}
    return record(celery_id, start_timestamp=start, **{**end, **status, **fields})


def find_lost() -> int:
    return rows.end_lost_runs(DAY.total_seconds())


def test_run_that_never_started_ends_as_lost_and_its_task_shows_it() -> None:
    rows.write([record(), record("new", timedelta(hours=23))])

    assert find_lost() == 1
    run = TaskRun.objects.get(celery_id="lost")
    assert (run.state, run.status, run.start_timestamp) == ("lost", "warning", None)
    event = f"Sent at {NOW - 3 * DAY:%Y-%m-%dT%H:%M:%S}Z, never started: "
    event += "the broker has lost it, or its worker does not record"
    assert run.exception == event
    (message,) = run.messages
    assert (message["event"], message["log_level"]) == (event, "warning")
    assert message["attributes"] == {"queue": "mail"}
    assert run.expires - run.finish_timestamp == 30 * DAY
    task = SystemTask.objects.get()
    assert (task.status, task.start_timestamp) == ("warning", NOW - 3 * DAY)
    assert task.messages == run.messages
    assert TaskRun.objects.get(celery_id="new").state == "queued"
    assert find_lost() == 0


def test_run_that_is_due_later_is_not_lost() -> None:
    rows.write([record(eta_timestamp=NOW - timedelta(hours=1))])

    assert find_lost() == 0


def test_run_that_started_is_not_lost() -> None:
    rows.write([record("running"), record("ended")])
    rows.write([started("running", NOW - 2 * DAY), ended("ended", NOW - 2 * DAY)])

    assert find_lost() == 0


def test_lost_run_that_starts_after_all_is_in_progress_and_ends() -> None:
    rows.write([record()])
    find_lost()
    rows.write([started("lost", NOW)])
    run = TaskRun.objects.get()
    assert (run.state, run.finish_timestamp, run.exception) == ("running", None, "")

    rows.write([ended("lost", NOW)])
    assert TaskRun.objects.get().state == "success"
    assert SystemTask.objects.get().status == "successful"


@pytest.mark.parametrize(("ago", "status"), [(4 * DAY, "warning"), (2 * DAY, "successful")])
def test_task_shows_a_lost_run_unless_a_later_one_has_run(ago: timedelta, status: str) -> None:
    rows.write([ended("other", NOW - ago), record()])
    find_lost()

    assert SystemTask.objects.get().status == status


def test_run_that_was_sent_does_not_expire_unseen(settings: Settings) -> None:
    rows.write([record(expires=NOW - DAY)])
    delete_expired([], defaultdict(set))
    assert TaskRun.objects.exists()

    settings.SYSTEMTASKS = {"LOST_AFTER_DAYS": 0}
    delete_expired([], defaultdict(set))
    assert not TaskRun.objects.exists()


@pytest.mark.parametrize(("days", "searches"), [(0.5, [43_200.0, 43_200.0]), (0, [])])
def test_reaper_looks_for_lost_runs_every_minute(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, days: float, searches: list[float]
) -> None:
    settings.SYSTEMTASKS = {"LOST_AFTER_DAYS": days}
    clock = Clock()
    made: list[float] = []

    def end_lost_runs(seconds: float) -> int:
        made.append(seconds)
        return 0

    monkeypatch.setattr(orphans, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(rows, "end_orphaned_runs", lambda _: 0)
    monkeypatch.setattr(rows, "end_lost_runs", end_lost_runs)
    reaper = Reaper()
    for _ in range(6):
        reaper.reap()
        clock.now += 15

    assert made == searches


def test_admin_says_that_it_was_sent_and_never_started(admin_client: Client) -> None:
    rows.write([record(), record("waiting", timedelta(hours=2))])
    find_lost()

    page = admin_client.get("/admin/systemtasks/taskrun/").content.decode()
    assert "3\N{NO-BREAK SPACE}days ago</time>, never started" in page
    assert "sent <time" in page
    run = TaskRun.objects.get(celery_id="lost")
    page = admin_client.get(f"/admin/systemtasks/taskrun/{run.pk}/change/").content.decode()
    assert "3\N{NO-BREAK SPACE}days ago</time>, never started" in page
