"""What people do about failures, in a real browser: select, run again, acknowledge, save a view."""

from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect
from pytest_django.live_server_helper import LiveServer

from systemtasks import rerun
from systemtasks.models import TaskRun
from systemtasks.rerun import Sender, Sent
from systemtasks.states import State, Status
from tests import factories
from tests.browser import test_admin
from tests.browser.test_admin import rows, visit  # noqa: F401 - a fixture
from tests.browser.test_live import change, refreshed
from tests.systemtasks.admin_parts.test_acknowledging import failed

pytestmark = test_admin.pytestmark

RUNS = "/admin/systemtasks/taskrun/"


@pytest.fixture
def runs(rows: None) -> list[TaskRun]:  # noqa: F811
    task = factories.system_task("demo.sync")
    return [failed(task, n, args=[n], exception=f"E: timed out after {n} s") for n in range(4)]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Return the list of what is handed to the sender, which sends nothing here."""
    found: list[Sent] = []

    def send(_: Sender, what: Sent, context: Any) -> str:
        found.append(what)
        return f"new-{len(found)}"

    monkeypatch.setattr(rerun.Sender, "send", send)
    return found


def test_selected_runs_are_run_again_once(
    live_server: LiveServer, runs: list[TaskRun], sent: list[Sent]
) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}{RUNS}?q=timed")
        button = page.get_by_role("button", name="Run selected again")
        expect(button).to_be_disabled()
        boxes = page.locator("#st-rows").get_by_role("checkbox")
        boxes.first.focus()
        page.keyboard.press("Space")
        boxes.nth(2).check()
        expect(button).to_be_enabled()
        change(lambda: failed(runs[0].system_task, exception="E: timed out again"))
        with refreshed(page):  # what is selected neither moves nor is forgotten
            pass
        expect(page.locator("[data-live-state]")).to_contain_text("New rows wait")
        expect(page.locator("#st-rows input:checked")).to_have_count(2)
        button.click()
        page.get_by_role("button", name="Run 2 again").dblclick()
        page.wait_for_url("**/run-again/*-*/")
        expect(page.get_by_text("Sent again: 2 of 2")).to_be_visible()
        page.reload()
        page.go_back()
        assert sorted(what.args[0] for what in sent if what.args) == [0, 2]
        assert visited.troubles == []


def test_one_box_selects_all_rows_of_the_page(live_server: LiveServer, runs: list[TaskRun]) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}{RUNS}?q=timed")
        page.get_by_role("checkbox", name="Select all on this page").check()
        expect(page.locator("#st-rows input:checked")).to_have_count(4)
        page.get_by_role("button", name="Run selected again").click()
        expect(page.get_by_role("button", name="Run 4 again")).to_be_visible()


def test_error_is_acknowledged_from_the_page_of_its_task(
    live_server: LiveServer, runs: list[TaskRun]
) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.goto(
            f"{live_server.url}/admin/systemtasks/systemtask/{runs[0].system_task_id}/change/"
        )
        page.get_by_role("link", name="Acknowledge E: timed out").click()
        page.get_by_label("Note").fill("looking at the bank")
        page.keyboard.press("Enter")
        expect(page.locator(".st-errors")).to_contain_text("seen by ops: looking at the bank")
        page.goto(f"{live_server.url}/admin/systemtasks/systemtask/home/")
        expect(page.locator("#failing")).to_contain_text("seen by ops: looking at the bank")
        page.goto(f"{live_server.url}{RUNS}")
        page.get_by_role("link", name="Not acknowledged").click()
        expect(page.locator("#st-rows")).not_to_contain_text("demo.sync")
        assert visited.troubles == []


def test_view_is_saved_used_and_deleted_with_the_keyboard(
    live_server: LiveServer, runs: list[TaskRun]
) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}{RUNS}?q=timed&status=error")
        menu = page.locator(".st-views-menu summary")
        menu.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("Bank p/")  # which are no keys of the list here
        page.keyboard.press("Enter")
        expect(page.get_by_text("The view is saved: Bank p/")).to_be_visible()
        page.goto(f"{live_server.url}{RUNS}")
        view = page.get_by_role("navigation", name="Saved views").get_by_role("link")
        view.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=timed&status=error")
        expect(view).to_have_attribute("aria-current", "true")
        expect(page.locator("#st-rows tr")).to_have_count(4)
        menu.click()
        page.get_by_role("button", name="Delete the view Bank p/").press("Enter")
        expect(page.get_by_text("The view is deleted: Bank p/")).to_be_visible()
        expect(view).to_have_count(0)
        assert page.url.endswith("?q=timed&status=error")
        assert visited.troubles == []


def test_progress_of_a_running_run_moves_without_a_reload(
    live_server: LiveServer,
    rows: None,  # noqa: F811
) -> None:
    def said(done: int) -> list[Any]:
        attributes = {"done": done, "total": 10}
        return [factories.log_event(f"{done} of 10 done", attributes=attributes)]

    run = factories.task_run(
        factories.system_task("demo.sync"), state=State.RUNNING, status=Status.UNKNOWN,
        start_timestamp=timezone.now(), finish_timestamp=None, messages=said(3),
    )  # fmt: skip
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}{RUNS}{run.pk}/change/")
        bar = page.get_by_role("progressbar", name="Progress")
        expect(bar).to_have_attribute("value", "3")
        change(lambda: TaskRun.objects.filter(pk=run.pk).update(messages=said(7)))
        expect(bar).to_have_attribute("value", "7", timeout=9000)
        expect(page.locator(".st-line")).to_have_count(1)
        expect(page.locator(".st-event")).to_have_text("7 of 10 done")
        assert visited.troubles == []
