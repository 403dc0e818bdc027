"""Acknowledge failures: who may, what is on record, where it is shown, and when it goes."""

import re
from collections import defaultdict
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from systemtasks.admin_parts.acknowledging import acknowledge
from systemtasks.admin_parts.home import Home
from systemtasks.ids import first_id
from systemtasks.models import NOTE_LIMIT, Acknowledgement, SystemTask, TaskRun
from systemtasks.states import State, Status
from systemtasks.storage import partitions
from systemtasks.storage.retention import delete_expired
from tests import factories
from tests.systemtasks.admin_parts.test_run_again import VIEWS, client_of
from tests.systemtasks.test_admin import RUNS, TASKS, body, listed, page_of

pytestmark = pytest.mark.django_db

FAILED = {"state": State.FAILURE, "status": Status.ERROR}
NOTE = "looking at the bank"


@pytest.fixture
def operator() -> Client:
    return client_of(*VIEWS, "acknowledge_taskrun", username="ops")


def failed(task: SystemTask, minutes: float = 0, **fields: Any) -> TaskRun:
    start = timezone.now() - timedelta(minutes=minutes)
    values = {
        "start_timestamp": start,
        "finish_timestamp": start,
        "exception": "E: card 1",
        **FAILED,
    }
    return factories.task_run(task, **{**values, **fields})


def asking(run: TaskRun, *, all_of_them: bool = False) -> str:
    return page_of(run).replace("change/", "acknowledge/") + ("?all=1" if all_of_them else "")


def test_failed_run_is_acknowledged_with_a_note_and_says_so_wherever_it_is_shown(
    operator: Client, staff: Client
) -> None:
    run = failed(factories.system_task())
    assert f'href="{asking(run)}"' in body(operator, page_of(run))
    assert "E: card 1" in body(operator, asking(run))
    answer = operator.post(asking(run), {"note": f" {NOTE}\n"}, follow=True)
    assert answer.redirect_chain == [(page_of(run), 302)]
    found = Acknowledgement.objects.get()
    assert (found.run, found.user, found.note) == (run.pk, "ops", NOTE)
    entry = LogEntry.objects.get()
    assert entry.get_edited_object() == run
    assert NOTE in entry.get_change_message()
    for client in (operator, staff):  # who may view sees it, too
        assert f"seen by ops: {NOTE}" in body(client, page_of(run))
        assert f'title="seen by ops: {NOTE}"' in body(client, RUNS)
    assert asking(run) not in body(staff, page_of(run))


def test_who_may_not_acknowledge_is_refused() -> None:
    run = failed(factories.system_task())
    for permissions in (VIEWS, ("acknowledge_taskrun",), (*VIEWS, "run")):
        client = client_of(*permissions, username=str(len(permissions)) + permissions[-1])
        for answer in (client.get(asking(run)), client.post(asking(run))):
            assert answer.status_code == 403
            assert "has no permission" in answer.content.decode()
    assert not Acknowledgement.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.SUCCESS, "status": Status.SUCCESSFUL},
        {"state": State.RUNNING, "status": Status.UNKNOWN, "finish_timestamp": None},
    ],
)
def test_run_that_has_not_failed_is_not_acknowledged(
    operator: Client, fields: dict[str, Any]
) -> None:
    run = failed(factories.system_task(), **fields)
    assert asking(run) not in body(operator, page_of(run))
    assert "It has not failed." in body(operator, asking(run))
    assert "It has not failed." in operator.post(asking(run), follow=True).content.decode()
    assert not Acknowledgement.objects.exists()


def test_note_is_text_and_bounded(operator: Client) -> None:
    run = failed(factories.system_task())
    page = operator.post(asking(run), {"note": "n" * (NOTE_LIMIT + 1)}).content.decode()
    assert f"A note has {NOTE_LIMIT} characters at most." in page
    assert "n" * NOTE_LIMIT in page  # what was typed is not lost
    assert not Acknowledgement.objects.exists()
    operator.post(asking(run), {"note": "<b>\0" + "n" * (NOTE_LIMIT - 3)})
    for url in (page_of(run), RUNS, asking(run)):
        page = body(operator, url)
        assert "<b>nn" not in page
        assert "&lt;b&gt;nn" in page


def test_all_present_runs_of_an_error_are_acknowledged_and_no_later_one(operator: Client) -> None:
    task = factories.system_task()
    same = [failed(task, minutes, exception=f"E: card {minutes}") for minutes in (9, 5, 1)]
    other = failed(task, 2, exception="KeyError: 'x'")
    page = body(operator, page_of(task))
    assert f'href="{asking(same[2], all_of_them=True)}"' in page
    url = asking(same[2], all_of_them=True)
    page = body(operator, url)
    (newest,) = re.findall(r'name="newest" value="([^"]*)"', page)
    assert f'href="{RUNS}?same_error={same[2].pk}">3</a>' in page
    later = failed(task, 0, exception="E: card 0")  # after the page was shown
    answer = operator.post(url, {"note": NOTE, "newest": newest}, follow=True)
    assert answer.redirect_chain == [(page_of(task), 302)]
    assert {one.run for one in Acknowledgement.objects.all()} == {run.pk for run in same}
    assert f"3 of 4 seen by ops: {NOTE}" in answer.content.decode()
    entry = LogEntry.objects.get()
    assert entry.get_edited_object() == task
    assert "(3) E: card …" in entry.get_change_message()
    assert listed(operator, RUNS, acknowledged="no") == [later, other]
    assert listed(operator, RUNS, acknowledged="yes") == same[::-1]


def test_filter_lists_failures_that_nobody_has_acknowledged(operator: Client) -> None:
    task = factories.system_task()
    factories.task_run(task)
    seen, unseen = failed(task, 1), failed(task, 2)
    acknowledge([seen.pk], "ops", "")
    page = body(operator, RUNS)
    assert re.search(r'href="[?]acknowledged=no&amp;status=error">\s*Not acknowledged</a>', page)
    assert listed(operator, RUNS, status="error", acknowledged="no") == [unseen]
    assert "Acknowledged: <b>no, and failed</b>" in body(operator, RUNS, acknowledged="no")
    assert "cannot be filtered" in body(operator, RUNS, acknowledged="maybe")


def test_acknowledgement_can_be_undone(operator: Client) -> None:
    task = factories.system_task()
    first, second = failed(task, 1), failed(task, 2)
    url = asking(first, all_of_them=True)
    operator.post(url, {"note": NOTE})
    assert "Undo" in body(operator, url)
    operator.post(asking(first), {"action": "undo"})
    assert [one.run for one in Acknowledgement.objects.all()] == [second.pk]
    operator.post(url, {"action": "undo"})
    assert not Acknowledgement.objects.exists()
    messages = [entry.get_change_message() for entry in LogEntry.objects.order_by("-pk")]
    assert len([text for text in messages if text.startswith("Undo")]) == 2


def test_second_user_is_told_of_the_first(operator: Client) -> None:
    run = failed(factories.system_task())
    operator.post(asking(run), {"note": NOTE})
    other = client_of(*VIEWS, "acknowledge_taskrun", username="nina")
    page = other.post(asking(run), {"note": "mine"}, follow=True).content.decode()
    assert f"seen by ops: {NOTE}" in page
    assert Acknowledgement.objects.get().user == "ops"
    assert LogEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_exactly_one_is_on_record() -> None:
    runs = [failed(factories.system_task()).pk for _ in range(1)]
    ready, made = Barrier(2), []

    def work(user: str) -> None:
        ready.wait(10)
        made.append(acknowledge(runs, user, NOTE))
        connections.close_all()

    threads = [Thread(target=work, args=(user,)) for user in ("ops", "nina")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 1]
    assert Acknowledgement.objects.count() == 1


def test_home_says_who_looks_at_what_fails(operator: Client) -> None:
    task = factories.system_task("shop.charge")
    runs = [failed(task, minutes) for minutes in (20, 10)]
    [row] = Home("admin", may_view_runs=True).failing
    assert not row["seen"]
    acknowledge([runs[0].pk], "ops", NOTE)
    acknowledge([failed(task, 300).pk], "nina", "of long ago")
    page = body(operator, f"{TASKS}home/")
    assert f"1 of 2 seen by ops: {NOTE}" in page
    acknowledge([runs[1].pk], "nina", "")
    assert "seen by nina<" in body(operator, f"{TASKS}home/")
    [row] = Home("admin", may_view_runs=False).failing
    assert not row["seen"]


def queries(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        client.get(url)
    return len(captured)


def test_number_of_queries_does_not_depend_on_what_is_acknowledged(operator: Client) -> None:
    task = factories.system_task()
    runs = [failed(task, minutes, exception=f"E{'x' * minutes}: no") for minutes in range(1, 9)]
    urls = (RUNS, page_of(task), page_of(runs[0]), f"{TASKS}home/", f"{RUNS}?acknowledged=no")
    acknowledge([runs[0].pk], "ops", NOTE)
    before = [queries(operator, url) for url in urls]
    acknowledge([run.pk for run in runs[:6]], "ops", NOTE)
    assert [queries(operator, url) for url in urls] == before


def test_acknowledgement_goes_with_its_run(everything_is_counted: None) -> None:
    task = factories.system_task()
    past = timezone.now() - timedelta(minutes=1)
    gone, kept = failed(task, 5, expires=past), failed(task)
    acknowledge([gone.pk, kept.pk], "ops", NOTE)
    delete_expired([], defaultdict(set))
    assert [run.pk for run in TaskRun.objects.all()] == [kept.pk]
    assert [one.run for one in Acknowledgement.objects.all()] == [kept.pk]


def test_acknowledgements_of_a_day_go_with_its_partition(everything_is_counted: None) -> None:
    task = factories.system_task()
    day = partitions.make_ahead()[3]
    first, _ = partitions.bounds(day)
    past = timezone.now() - timedelta(minutes=1)
    gone = failed(task, id=first, expires=past, sort_timestamp=past)
    outliving = failed(task, id=first_id(partitions._midnight(day) + timedelta(hours=1)))
    other = failed(task)
    acknowledge([gone.pk, outliving.pk, other.pk], "ops", NOTE)
    partitions.drop(day)
    assert {run.pk for run in TaskRun.objects.all()} == {outliving.pk, other.pk}
    assert {one.run for one in Acknowledgement.objects.all()} == {outliving.pk, other.pk}
