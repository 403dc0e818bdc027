"""The made history: what it has, that it is the same each time, and where it is not written."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.forms.models import model_to_dict
from django.test import Client, override_settings
from pytest_django.plugin import DjangoDbBlocker

from systemtasks import statistics
from systemtasks.demo_history import catalogue
from systemtasks.demo_history.making import LEAST, History
from systemtasks.models import (
    Period,
    ScheduleEntry,
    StatisticsChange,
    SystemTask,
    TaskRun,
)
from systemtasks.states import State
from systemtasks.storage import partitions
from systemtasks.storage.database import execute
from tests import factories
from tests.made_history import written

NOW = datetime(2026, 3, 29, 3, 2, tzinfo=UTC)


def everything(history: History) -> list[dict[str, Any]]:
    rows = [*history.tasks.values(), *history.runs, *history.entries]
    return [{**model_to_dict(row), "pk": row.pk} for row in rows]


def test_it_depends_on_its_time_and_its_seed_alone() -> None:
    one = everything(History(NOW, runs=LEAST))
    assert one == everything(History(NOW, runs=LEAST))
    assert one != everything(History(NOW, runs=LEAST, seed=2))


@pytest.mark.parametrize("hour", [0, 2, 5, 13, 23])
def test_it_has_the_same_troubles_at_each_hour_of_the_day(hour: int) -> None:
    now = NOW.replace(hour=hour)
    history = History(now, runs=LEAST)
    assert len(history.runs) == LEAST
    ended = [run for run in history.runs if run.finish_timestamp]
    assert all(run.finish_timestamp <= now for run in ended)
    assert [entry.task for entry in history.entries if entry.enabled and entry.next_due < now] == [
        catalogue.REORDER.name
    ]
    assert history.tasks[catalogue.REPORT].status == "error"
    hour_ago = now - timedelta(hours=1)
    payments = [
        run.status
        for run in ended
        if run.system_task.name == catalogue.CHARGE.name and run.sort_timestamp >= hour_ago
    ]
    assert Counter(payments) == {"error": 9, "successful": 3}


@pytest.mark.django_db
def test_it_is_not_written_among_runs_of_others_unless_told_so() -> None:
    run = factories.task_run(factories.system_task())
    with pytest.raises(CommandError, match="has runs already"):
        call_command("systemtasks_demo_history")
    assert [*TaskRun.objects.all()] == [run]
    assert SystemTask.objects.count() == 1


@pytest.fixture(scope="module")
def history(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[History]:
    with written(django_db_blocker) as made:
        yield made


@pytest.mark.slow
@pytest.mark.django_db
def test_it_has_60_tasks_and_20_000_runs(history: History) -> None:
    assert (SystemTask.objects.count(), TaskRun.objects.count()) == (60, 20_000)
    assert ScheduleEntry.objects.filter(last_sent=None).count() == 2
    never = SystemTask.objects.filter(sort_timestamp=None)
    assert {task.name for task in never} == {catalogue.VOUCHERS.name, catalogue.CATALOGUE.name}


@pytest.mark.slow
@pytest.mark.django_db
def test_all_its_ended_runs_are_counted(history: History) -> None:
    span = (history.begin, history.now)
    by_day = statistics.by_time(*span, Period.DAY)
    counted: Counter[str] = sum((total.by_state for total in by_day.values()), Counter())
    kept = Counter(TaskRun.objects.finished().values_list("state", flat=True))
    assert counted == kept
    assert {State.FAILURE, State.RETRY, State.LOST, State.REVOKED, State.IGNORED} <= {*counted}
    assert StatisticsChange.objects.count() == 0
    until = statistics.folded_until()
    assert until is not None
    assert until > history.now - timedelta(hours=2)


@pytest.mark.slow
@pytest.mark.django_db
def test_its_runs_are_in_the_partitions_of_their_days(history: History) -> None:
    partition = f"{partitions.TABLE}_{history.begin:%Y%m%d}"
    [(number,)] = execute(f"SELECT count(*) FROM {partition}")
    assert number
    assert execute(f"SELECT count(*) FROM {partitions.DEFAULT}") == [(0,)]


@pytest.mark.slow
@pytest.mark.django_db
def test_more_is_written_if_told_so(history: History) -> None:
    output = StringIO()
    before = TaskRun.objects.count()
    call_command("systemtasks_demo_history", "--add", "--seed=2", f"--runs={LEAST}", stdout=output)
    assert "60 tasks, 8,000 runs" in output.getvalue()
    assert TaskRun.objects.count() == before + LEAST
    assert SystemTask.objects.count() == 60


NUMBERED = re.compile(r'<a href="([^"]+)"[^>]*>(?:<b>)?([\d,]+)(?:</b> <span>[^<]*</span>)?</a>')
"""A link whose text is a number."""


@pytest.mark.slow
@pytest.mark.django_db
@override_settings(SYSTEMTASKS={"LEASE_SECONDS": 86_000})
def test_list_behind_each_number_of_home_has_that_many_rows(history: History) -> None:
    client = Client()
    client.force_login(User.objects.get(username="ops"))
    page = client.get("/admin/systemtasks/systemtask/home/").content.decode()
    content = page[page.index("data-live-page") :]
    links = {(html.unescape(url), text) for url, text in NUMBERED.findall(content)}
    lists = {(url, int(text.replace(",", ""))) for url, text in links if not url.startswith("#")}
    assert len(lists) > 60
    assert {"state=lost", "state=late", "state=ended"} <= {
        part for url, _ in lists for part in url.partition("?")[2].split("&")
    }
    wrong = [
        (url, number, count)
        for url, number in lists
        if (count := client.get(url).context["cl"].result_count) != number
    ]
    assert wrong == []
    for url, text in links:
        if url.startswith("#"):  # a part of this page
            part = content[content.index(f'id="{url[1:]}"') :].partition("</section>")[0]
            kind = '"st-badge st-is-error"' if url == "#workers" else "data-key="
            assert part.count(kind) == int(text), url


@pytest.mark.slow
@pytest.mark.django_db
def test_day_behind_each_row_of_a_task_has_that_many_runs(history: History) -> None:
    client = Client()
    client.force_login(User.objects.get(username="ops"))
    task = history.tasks[catalogue.CHARGE]
    page = client.get(f"/admin/systemtasks/systemtask/{task.pk}/change/").content.decode()
    table = page[page.index("st-numbers") :].partition("</table>")[0]
    days = [(html.unescape(url), int(text)) for url, text in NUMBERED.findall(table)]
    assert len(days) == 30
    for url, number in days:
        assert client.get(url).context["cl"].result_count == number, url
