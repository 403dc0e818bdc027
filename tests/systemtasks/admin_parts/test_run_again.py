"""Run again in the admin: what is shown, who may do it, what is sent, and what is on record."""

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings

from systemtasks.capture.celery import received
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun
from systemtasks.rerun import BrokerAwayError, NotRerunnableError, Sent
from systemtasks.states import State, Status
from tests import factories
from tests.events.test_run import QUEUE, app, messages, silent_app  # noqa: F401
from tests.systemtasks.test_admin import page_of

pytestmark = pytest.mark.django_db

VIEWS = ("view_systemtask", "view_taskrun")


def client_of(*permissions: str, username: str = "nina") -> Client:
    client = Client()
    client.force_login(factories.user(username, *permissions, is_staff=True))
    return client


@pytest.fixture
def operator() -> Client:
    return client_of(*VIEWS, "run")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sent, Any]]:
    """Return the list of what the pages hand to `send_again`, which sends nothing here."""
    found: list[tuple[Sent, Any]] = []

    def send_again(what: Sent, context: Any) -> str:
        found.append((what, context))
        return "new-id"

    monkeypatch.setattr("systemtasks.admin_parts.run_again.send_again", send_again)
    return found


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def send_again(*_: Any) -> str:
        raise error

    monkeypatch.setattr("systemtasks.admin_parts.run_again.send_again", send_again)


def failed_run(**fields: Any) -> TaskRun:
    task = factories.system_task("shop.charge")
    values = {"args": [4711], "kwargs": {"currency": "EUR"}, "queue": "payments", **fields}
    return factories.task_run(task, state=State.FAILURE, status=Status.ERROR, **values)


def again(row: SystemTask | TaskRun) -> str:
    return page_of(row).replace("change/", "run-again/").replace("//", "/")


def test_page_of_a_run_and_of_a_task_link_to_it_for_an_operator_only(operator: Client) -> None:
    run = failed_run()
    viewer = client_of(*VIEWS, username="vera")
    for row in (run, run.system_task):
        assert f'href="{again(row)}"' in operator.get(page_of(row)).content.decode()
        assert "run-again" not in viewer.get(page_of(row)).content.decode()


@pytest.mark.parametrize("permissions", [VIEWS, ("run",)])
def test_who_may_not_run_or_not_view_is_refused(
    permissions: tuple[str, ...], sent: list[tuple[Sent, Any]]
) -> None:
    client, run = client_of(*permissions), failed_run()
    for row in (run, run.system_task):
        for answer in (client.get(again(row)), client.post(again(row))):
            assert answer.status_code == 403
            assert "has no permission" in answer.content.decode()
    assert not sent


def test_it_shows_arguments_and_queue_and_sends_nothing_before_it_is_confirmed(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    run = failed_run()
    for row in (run, run.system_task):
        page = operator.get(again(row)).content.decode()
        for text in ("shop.charge", "[4711]", "currency", "payments", "nina", str(run.pk)):
            assert text in page
    assert not sent


def test_confirmation_sends_that_run_and_says_who_asked_in_the_run_and_in_the_log_of_the_admin(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    run = failed_run()
    answer = operator.post(again(run), follow=True)
    assert answer.redirect_chain == [(page_of(run), 302)]
    assert "Sent again as" in answer.content.decode()
    assert "?q=new-id" in answer.content.decode()
    [(what, context)] = sent
    assert (what.run, what.args) == (run.pk, [4711])
    assert context == {"run_again_by": "nina", "run_again_of": str(run.pk)}
    entry = LogEntry.objects.get()
    assert entry.user == User.objects.get(username="nina")
    assert entry.get_edited_object() == run
    assert "new-id" in entry.get_change_message()


def form(client: Client, row: SystemTask | TaskRun) -> dict[str, str]:
    page = client.get(again(row)).content.decode()
    return dict(re.findall(r'name="(run|key|shown)" value="([^"]*)"', page))


def test_page_that_is_confirmed_twice_sends_once(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    run = failed_run()
    for row in (run, run.system_task):
        sent.clear()
        fields = form(operator, row)
        for _ in range(2):
            answer = operator.post(again(row), fields, follow=True)
            assert "?q=new-id" in answer.content.decode()
        assert len(sent) == 1


@pytest.mark.parametrize("of_task", [False, True])
def test_of_two_users_with_the_same_page_the_first_one_sends(
    operator: Client, sent: list[tuple[Sent, Any]], of_task: bool
) -> None:
    run = failed_run()
    row = run.system_task if of_task else run
    other = client_of(*VIEWS, "run", username="omar")
    forms = [form(client, row) for client in (operator, other)]
    operator.post(again(row), forms[0])
    page = other.post(again(row), forms[1], follow=True).content.decode()
    assert "Not sent: nina has run it again since you were asked." in page
    assert len(sent) == 1
    # Who has seen that it was sent may send it once more.
    assert "Already run again by nina" in other.get(again(run)).content.decode()
    other.post(again(row), form(other, row))
    assert len(sent) == 2


@pytest.mark.parametrize("shown", ["", "x", "-1", "9" * 400, "\N{SUPERSCRIPT TWO}", "\0"])
def test_odd_fields_of_the_form_break_nothing(
    operator: Client, sent: list[tuple[Sent, Any]], shown: str
) -> None:
    fields = {"key": shown, "shown": shown}
    assert operator.post(again(failed_run()), fields).status_code == 302
    assert len(sent) == 1


def test_task_is_sent_as_the_page_has_shown_it_although_it_has_run_since(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    shown = failed_run()
    task = shown.system_task
    factories.task_run(task, args=["later"])
    operator.post(again(task), {"run": str(shown.pk)})
    assert [what.run for what, _ in sent] == [shown.pk]
    other = factories.task_run(factories.system_task("another"))
    for wrong in (str(other.pk), "no-uuid"):
        assert operator.post(again(task), {"run": wrong}).status_code == 404
    assert len(sent) == 1


def test_task_without_a_run_is_sent_as_its_schedule_sends_it(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    task = factories.system_task("shop.nightly")
    assert "No run of this task" in operator.get(again(task)).content.decode()
    ScheduleEntry.objects.create(
        app="a", entry="e", task=task.name, args=[8], kwargs={}, arguments_intact=True,
        sent_options={"queue": "night"},
    )  # fmt: skip
    page = operator.get(again(task)).content.decode()
    assert "[8]" in page
    assert "night" in page
    operator.post(again(task))
    [(what, context)] = sent
    assert what.args == [8]
    assert context == {"run_again_by": "nina"}


def test_arguments_are_hidden_from_who_may_not_view_runs(sent: list[tuple[Sent, Any]]) -> None:
    run = failed_run()
    client = client_of("view_systemtask", "run")
    page = client.get(again(run.system_task)).content.decode()
    assert "4711" not in page
    assert "You may not see them" in page


def test_run_whose_arguments_are_not_on_record_has_the_reason_and_no_button(
    operator: Client, sent: list[tuple[Sent, Any]]
) -> None:
    run = failed_run(arguments_intact=False)
    for answer in (operator.get(again(run)), operator.post(again(run))):
        page = answer.content.decode()
        assert "not on record as they were" in page
        assert "data-once" not in page
    assert not sent
    assert not LogEntry.objects.exists()


def test_error_of_sending_is_a_message_and_is_logged_if_it_may_have_been_sent(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run()
    fail_with(NotRerunnableError("No worker knows this task."), monkeypatch)
    assert "No worker knows this task." in operator.post(again(run), follow=True).content.decode()
    assert not LogEntry.objects.exists()
    fail_with(BrokerAwayError("The broker does not answer."), monkeypatch)
    assert "The broker does not answer." in operator.post(again(run), follow=True).content.decode()
    assert "does not answer" in LogEntry.objects.get().get_change_message()


def test_it_is_refused_without_the_token_of_the_form(sent: list[tuple[Sent, Any]]) -> None:
    run = failed_run()
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.user("nina", *VIEWS, "run", is_staff=True))
    assert client.post(again(run)).status_code == 403
    assert not sent


def test_message_on_the_broker_says_who_asked_for_it(
    operator: Client,
    app: Any,  # noqa: F811
) -> None:
    task = factories.system_task("tests.clean_up")
    run = factories.task_run(task, args=[7], queue=QUEUE)
    answer = operator.post(again(run), follow=True)
    assert "Sent again as" in answer.content.decode()
    [message] = messages()
    assert message.decode()[0] == [7]
    context = json.loads(message.headers["systemtasks_context"])
    assert context == {"run_again_by": "nina", "run_again_of": str(run.pk)}


def tenant() -> dict[str, str]:
    """Return what a project's SENDER_CONTEXT may."""
    return {"tenant": "acme"}


def test_context_that_is_added_is_beside_the_projects_own_and_is_gone_afterwards() -> None:
    with override_settings(SYSTEMTASKS={"SENDER_CONTEXT": f"{__name__}.tenant"}):
        with received.added_context({"run_again_by": "nina"}):
            header = received.context_header()
        after = received.context_header()
    assert json.loads(header or "") == {"tenant": "acme", "run_again_by": "nina"}
    assert json.loads(after or "") == {"tenant": "acme"}
    with received.added_context({"run_again_by": "nina"}):
        assert json.loads(received.context_header() or "") == {"run_again_by": "nina"}
    assert received.context_header() is None


def test_number_of_queries_is_bounded(operator: Client, django_assert_max_num_queries: Any) -> None:
    run = failed_run()
    for _ in range(20):
        factories.task_run(run.system_task)
    for row in (run, run.system_task):
        with django_assert_max_num_queries(8):
            operator.get(again(row))
