"""Run a selection or an error group again: what is shown, what is sent, and what is reported."""

import json
import re
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from systemtasks import rerun
from systemtasks.admin_parts import run_again_many
from systemtasks.models import RunAgain, ScheduleEntry, SystemTask, TaskRun
from systemtasks.rerun import BrokerAwayError
from systemtasks.states import State, Status
from tests import factories
from tests.events.test_run import QUEUE, app, messages, silent_app  # noqa: F401
from tests.systemtasks.admin_parts.test_acknowledging import failed
from tests.systemtasks.admin_parts.test_run_again import VIEWS, again, client_of
from tests.systemtasks.test_admin import RUNS, TASKS, body, page_of

pytestmark = pytest.mark.django_db

KNOWN = "tests.clean_up"


@pytest.fixture
def operator() -> Client:
    return client_of(*VIEWS, "run")


def asking(*rows: TaskRun | SystemTask) -> str:
    url = RUNS if isinstance(rows[0], TaskRun) else TASKS
    return f"{url}run-again/?{urlencode([('row', row.pk) for row in rows])}"


def fields(page: str) -> dict[str, list[str]]:
    """Return the hidden fields of the form."""
    found: dict[str, list[str]] = {"run": [], "task": [], "key": [], "shown": []}
    for name, value in re.findall(
        r'<input type="hidden" name="(run|task|key|shown)" value="([^"]*)"', page
    ):
        found[name].append(value)
    return found


def confirm(client: Client, url: str) -> Any:
    return client.post(url.partition("?")[0], fields(body(client, url)), follow=True)


def some_runs(count: int = 3, **values: Any) -> list[TaskRun]:
    task = factories.system_task(KNOWN)
    return [
        failed(task, n, args=[n], queue=QUEUE, exception=f"E: {n}", **values) for n in range(count)
    ]


def test_list_offers_boxes_to_who_may_run_again_alone(operator: Client, staff: Client) -> None:
    run = some_runs(1)[0]
    for url, row in ((RUNS, run), (TASKS, run.system_task)):
        page = body(operator, url)
        assert f'name="row" value="{row.pk}" form="st-selection"' in page
        assert f'action="{url}run-again/"' in page
        assert "st-selection" not in body(staff, url)
    TaskRun.objects.all().delete()
    assert "st-selection" not in body(operator, RUNS)


@pytest.mark.parametrize("permissions", [VIEWS, ("run",)])
def test_who_may_not_run_or_not_view_is_refused(permissions: tuple[str, ...]) -> None:
    client, run = client_of(*permissions), some_runs(1)[0]
    for answer in (
        client.get(asking(run)),
        client.post(f"{RUNS}run-again/", {"key": str(uuid4()), "run": str(run.pk)}),
        client.get(f"{RUNS}run-again/{uuid4()}/"),
    ):
        assert answer.status_code == 403
    assert not RunAgain.objects.exists()


def test_page_shows_what_is_sent_by_task_and_what_cannot_be_and_why(operator: Client) -> None:
    runs = some_runs(2)
    pay: dict[str, Any] = {"kwargs": {"currency": "EUR"}, "queue": "pay"}
    other = failed(factories.system_task("shop.charge"), **pay)
    masked = failed(factories.system_task("shop.mask"), arguments_intact=False)
    unknown = failed(factories.system_task("shop.old"), sent_options=None)
    retried = failed(other.system_task, celery_id=other.celery_id, attempt=2, **pay)
    page = body(operator, asking(*runs, other, masked, unknown, retried))
    assert "Run 3 again" in page
    assert re.search(rf"<h2>{KNOWN} <small>2, to the queue {QUEUE}</small>", page)
    assert re.search(r"<h2>shop.charge <small>1, to the queue pay</small>", page)
    for text in ("[0]", "[1]", "currency", "nina"):
        assert text in page
    assert sorted(fields(page)["run"]) == sorted(str(run.pk) for run in (*runs, retried))
    refused = page[page.index("Cannot be sent <small>3</small>") :]
    assert "not on record as they were" in refused
    assert "not on record what the message of this run carried" in refused
    assert "Another attempt of the same message is sent already." in refused
    assert not RunAgain.objects.exists()


def test_selection_is_sent_and_each_new_run_and_the_log_say_who_and_of_which_run(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    runs = some_runs()
    answer = confirm(operator, asking(*runs))
    page = answer.content.decode()
    assert "Sent again: 3 of 3" in page
    found = messages()
    assert sorted(one.decode()[0][0] for one in found) == [0, 1, 2]
    contexts = [json.loads(one.headers["systemtasks_context"]) for one in found]
    assert {one["run_again_by"] for one in contexts} == {"nina"}
    assert {one["run_again_of"] for one in contexts} == {str(run.pk) for run in runs}
    for one in found:
        assert f'{RUNS}?q={one.headers["id"]}"' in page
    logged = {
        entry.get_edited_object(): entry.get_change_message() for entry in LogEntry.objects.all()
    }
    assert logged.keys() == {*runs}
    assert {one.headers["id"] for one in found} == {
        text.split()[-1][:-1] for text in logged.values()
    }
    assert "already run again by nina" in body(operator, asking(*runs))


def test_page_that_is_confirmed_twice_sends_once(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    runs = some_runs()
    form = fields(body(operator, asking(*runs)))
    first = operator.post(f"{RUNS}run-again/", form)
    second = operator.post(f"{RUNS}run-again/", form)
    assert first.headers["location"] == second.headers["location"]
    operator.get(first.headers["location"])
    operator.get(first.headers["location"])
    assert len(messages()) == 3
    assert LogEntry.objects.count() == 3


def test_of_two_users_with_the_same_page_the_first_one_sends(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    runs = some_runs(2)
    other = client_of(*VIEWS, "run", username="omar")
    url = f"{RUNS}run-again/?same_error={runs[0].pk}"
    forms = [fields(body(client, url)) for client in (operator, other)]
    first = operator.post(f"{RUNS}run-again/", forms[0], follow=True).content.decode()
    second = other.post(f"{RUNS}run-again/", forms[1], follow=True).content.decode()
    assert "Sent again: 2 of 2" in first
    assert "Sent again: 0 of 2" in second
    assert second.count("Not sent: nina has run it again since you were asked.") == 2
    assert len(messages()) == 2
    # Who has seen that they were sent may send them once more.
    assert "already run again by nina" in body(other, asking(*runs))
    assert "Sent again: 2 of 2" in confirm(other, asking(*runs)).content.decode()


def test_run_that_was_run_again_alone_is_not_sent_with_its_error(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    runs = some_runs(2)
    operator.post(again(runs[0]))
    page = body(operator, f"{RUNS}run-again/?same_error={runs[0].pk}")
    assert fields(page)["run"] == [str(runs[1].pk)]
    assert "since they have been run again: 1" in page
    assert "already run again by nina" in body(operator, asking(*runs))


def test_broker_that_goes_away_in_the_middle_leaves_a_report_of_what_was_sent(
    operator: Client,
    app: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = some_runs(4)
    send, tried = rerun._send, []

    def fail_second(*values: Any) -> str:
        tried.append(values)
        if len(tried) == 2:
            raise BrokerAwayError("It is not known whether the task was enqueued.")
        return send(*values)

    monkeypatch.setattr(rerun, "_send", fail_second)
    page = confirm(operator, asking(*runs)).content.decode()
    assert "Sent again: 1 of 4" in page
    assert "Not sent, or not known to be: 3" in page
    assert page.count("It is not known whether the task was enqueued.") == 1
    assert page.count("It was not sent: the broker did not answer before.") == 2
    assert len(tried) == 2
    assert len(messages()) == 1
    # What may have been sent is in the log; what was not is not.
    assert LogEntry.objects.count() == 2


def test_process_that_dies_in_the_middle_leaves_on_record_what_it_had_begun(
    operator: Client,
    app: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = some_runs(2)

    def die(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(rerun, "_send", die)
    form = fields(body(operator, asking(*runs)))
    with pytest.raises(KeyboardInterrupt):
        operator.post(f"{RUNS}run-again/", form)
    page = body(operator, f"{RUNS}run-again/{form['key'][0]}/")
    assert "Sent again: 0 of 1" in page
    assert "It is not known yet of these: 1." in page


def test_tasks_are_sent_as_their_last_run_or_their_schedule_sends_them(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    run = some_runs(1)[0]
    scheduled = factories.system_task("app.sync")
    never = factories.system_task("shop.never")
    ScheduleEntry.objects.create(
        app="a", entry="e", task="app.sync", args=[8], kwargs={}, arguments_intact=True,
        sent_options={"queue": QUEUE},
    )  # fmt: skip
    url = asking(run.system_task, scheduled, never)
    page = body(operator, url)
    assert "as the schedule sends it" in page
    assert "No run of this task is on record" in page
    assert (fields(page)["run"], fields(page)["task"]) == ([str(run.pk)], [str(scheduled.pk)])
    assert "Sent again: 2 of 2" in confirm(operator, url).content.decode()
    assert sorted(one.decode()[0][0] for one in messages()) == [0, 8]
    assert {entry.get_edited_object() for entry in LogEntry.objects.all()} == {
        run.system_task, scheduled,
    }  # fmt: skip


def test_error_group_is_sent_in_parts_that_do_not_overlap(
    operator: Client,
    app: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_again_many, "MOST", 2)
    runs = some_runs(5)
    retried = {"state": State.RETRY, "status": Status.WARNING}
    failed(runs[0].system_task, 9, exception="E: 9", **retried)
    url = f"{RUNS}run-again/?same_error={runs[0].pk}"
    assert url in body(operator, page_of(runs[0].system_task))
    page = body(operator, url)
    assert "Run 2 again" in page
    assert "at most 2 at a time" in page
    assert "since Celery has retried them: 1" in page
    assert "left for the next: 3" in page
    for number in (2, 2, 1):
        assert f"Sent again: {number} of {number}" in confirm(operator, url).content.decode()
    assert sorted(one.decode()[0][0] for one in messages()) == [0, 1, 2, 3, 4]
    page = body(operator, url)
    assert "Nothing can be run again" in page
    assert "since they have been run again: 5" in page


@pytest.mark.parametrize(
    "query", [{"row": "x"}, {"same_error": "x"}, {"row": [str(uuid4())] * 101}]
)
def test_malformed_or_too_many_ids_are_refused(operator: Client, query: dict[str, Any]) -> None:
    answers = (
        operator.get(f"{RUNS}run-again/", query),
        operator.post(f"{RUNS}run-again/", {"key": "x"}),
    )
    for answer in answers:
        assert answer.status_code == 400
        page = answer.content.decode()
        assert "is malformed" in page or "At most 100 are run again at a time." in page
        assert "logout" in page  # the look of the admin, with its header


def test_arguments_are_hidden_from_who_may_not_view_runs() -> None:
    run = some_runs(1)[0]
    TaskRun.objects.update(args=["a secret"])
    client = client_of("view_systemtask", "run")
    page = body(client, asking(run.system_task))
    assert "Run 1 again" in page
    assert "a secret" not in page
    assert "You may not see the arguments" in page


def queries(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        client.get(url)
    return len(captured)


def test_number_of_queries_does_not_depend_on_how_many_are_selected(operator: Client) -> None:
    runs = some_runs(9)
    assert queries(operator, asking(*runs[:2])) == queries(operator, asking(*runs))
    group = f"{RUNS}run-again/?same_error="
    other = failed(factories.system_task("other"))
    assert queries(operator, f"{group}{other.pk}") == queries(operator, f"{group}{runs[0].pk}")
