"""The API in projects whose settings differ: USE_TZ=False, TIME_ZONE, ATOMIC_REQUESTS."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Max
from django.db.models.functions import Coalesce
from django.test import Client
from pytest_django import Settings

from events import views
from events.models import TokenGrant
from systemtasks.models import SystemTask, TaskRun
from tests import factories, processes
from tests.events.conftest import client_of

FILES = [
    f"tests/events/test_{name}.py"
    for name in ("list", "prepared", "retrieve", "runs", "summary", "tokens", "waiting")
]
HOUR_IN_DAYLIGHT_TIME = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
"""Half past one in New York. The clock shows it a second time an hour later."""
MOMENTS = [HOUR_IN_DAYLIGHT_TIME, HOUR_IN_DAYLIGHT_TIME + timedelta(hours=1)]


@pytest.fixture
def _new_york(settings: Settings, db: None) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"


@pytest.fixture
def _atomic(db: None) -> Iterator[None]:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.usefixtures("_new_york")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_time_is_in_utc_without_use_tz_even_when_the_clock_shows_it_twice(
    moment: datetime,
) -> None:
    task = factories.system_task(start_timestamp=moment, finish_timestamp=moment)
    run = factories.task_run(task, sent_timestamp=None)

    assert SystemTask.objects.get().start_timestamp == moment
    assert SystemTask.objects.get().start_timestamp.tzinfo is UTC
    assert TaskRun.objects.get().sent_timestamp is None
    assert TaskRun.objects.aggregate(last=Max("start_timestamp"))["last"] == moment
    started = Coalesce("sent_timestamp", "start_timestamp")
    assert TaskRun.objects.values_list(started, flat=True).get() == moment
    assert TaskRun.objects.filter(start_timestamp=moment).get() == run
    run.refresh_from_db()
    run.save()
    assert TaskRun.objects.get().start_timestamp == moment


@pytest.mark.usefixtures("_new_york")
@pytest.mark.parametrize("ago", [timedelta(hours=1), timedelta(hours=23)])
def test_summary_of_the_last_day_has_what_ran_in_it_without_use_tz(ago: timedelta) -> None:
    moment = datetime.now(UTC) - ago
    factories.task_run(factories.system_task(start_timestamp=moment, finish_timestamp=moment))

    answer = client_of("historian", "view_taskrun").get("/api/v3/events/task_runs/summary/")
    (row,) = answer.json()["results"]
    assert datetime.fromisoformat(row["last_success"]) == moment
    assert row["last_success"].endswith("Z")


@pytest.mark.usefixtures("_atomic")
def test_refused_request_is_counted_with_atomic_requests(reader: Client) -> None:
    bearer = reader.defaults["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    factories.grant(bearer, rate=60)

    assert reader.get("/api/v3/events/system_tasks/nonsense/").status_code == 400
    assert TokenGrant.objects.get().spent_until is not None


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_atomic")
def test_request_that_waits_is_in_no_transaction_with_atomic_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_transaction: list[Any] = []
    monkeypatch.setattr(
        views, "wait_for_end", lambda *_: in_transaction.append(connection.in_atomic_block)
    )
    run = factories.task_run(factories.system_task())

    url = f"/api/v3/events/task_runs/{run.pk}/?wait=1"
    assert client_of("historian", "view_taskrun").get(url).status_code == 200
    assert in_transaction == [False]


@pytest.mark.slow
def test_api_is_the_same_in_new_york(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # The router of one test names a database that is not in the settings.
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-k", "not router_names"]
    command += ["--ds", "tests.new_york_settings", "-p", "no:cacheprovider", *FILES]
    variables = {key: text for key, text in os.environ.items() if not key.startswith("PYTEST_")}
    process = processes.start(command, log, variables)
    try:
        assert process.wait(1500) == 0, log.read_text()
    finally:
        processes.kill(process)
