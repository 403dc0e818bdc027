"""Lists that refresh themselves, the keys, and the command palette."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.apps import apps
from django.db import connections
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from systemtasks.models import TaskRun
from tests import factories
from tests.browser import test_admin
from tests.browser.test_admin import rows, visit  # noqa: F401 - a fixture
from tests.systemtasks.admin_parts import history

pytestmark = test_admin.pytestmark


def change(what: Callable[[], Any]) -> None:
    """Change rows in another thread: Playwright's loop runs in this one."""

    def work() -> None:
        what()
        connections.close_all()

    thread = Thread(target=work)
    thread.start()
    thread.join()


def add_run(name: str) -> None:
    task = factories.system_task(name)
    factories.task_run(task, celery_id=name)


def open_runs(live_server: LiveServer, page: Page) -> None:
    page.goto(f"{live_server.url}/admin/systemtasks/taskrun/")


def refreshed(page: Page) -> Any:
    """Return the next answer to the page's own script."""
    return page.expect_response(lambda r: "x-systemtasks-live" in r.request.headers)


def test_list_refreshes_itself_and_a_key_pauses_it(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        open_runs(live_server, page)
        table = page.locator("#result_list")
        page.mouse.move(0, 0)
        change(lambda: add_run("demo.new"))
        expect(table).to_contain_text("demo.new")
        expect(page.locator("[data-live=count]")).to_have_text("2")

        page.keyboard.press("p")
        pause = page.get_by_role("button", name="Pause")
        expect(pause).to_have_attribute("aria-pressed", "true")
        change(lambda: add_run("demo.later"))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(6000)  # longer than a list waits: nothing may be asked for
        assert asked == []
        expect(table).not_to_contain_text("demo.later")
        page.keyboard.press("p")
        expect(table).to_contain_text("demo.later")
        assert visited.troubles == []


def test_nothing_jumps_under_the_cursor(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        open_runs(live_server, page)
        row = page.locator("#st-rows tr").first
        row.hover()
        before = row.bounding_box()
        change(lambda: add_run("demo.new"))
        change(lambda: TaskRun.objects.filter(celery_id="9f3ae529-run").update(queue="moved"))
        with refreshed(page):
            pass
        expect(row).to_contain_text("moved")  # what is there is up to date
        expect(row).to_contain_text("9f3ae529")
        expect(page.locator("[data-live-state]")).to_contain_text("New rows wait")
        assert row.bounding_box() == before
        page.mouse.move(0, 0)
        expect(row).to_contain_text("demo.new")

        page.locator("#st-rows a").last.focus()
        change(lambda: add_run("demo.newer"))
        with refreshed(page):
            pass
        expect(page.locator("#st-rows a").last).to_be_focused()
        expect(row).to_contain_text("demo.new")


def test_list_that_cannot_be_refreshed_says_so(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        open_runs(live_server, page)
        page.route("**/taskrun/", lambda route: route.abort())
        state = page.locator("[data-live-state]")
        expect(state).to_contain_text("Not up to date")
        page.unroute("**/taskrun/")
        expect(state).to_have_text("")


def test_keys_can_be_switched_off(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        page.keyboard.press("/")
        search = page.get_by_role("searchbox", name="Search")
        expect(search).to_be_focused()
        page.keyboard.type("a/p")
        expect(search).to_have_value("a/p")
        page.get_by_text("Keys", exact=True).click()
        page.get_by_label("Use these keys").uncheck()
        page.reload()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox", name="Search")).not_to_be_focused()


@pytest.mark.skipif(not apps.is_installed("unfold"), reason="It is django-unfold's")
def test_palette_leads_to_the_run_of_an_id(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    run = TaskRun.objects.get()
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}/admin/")
        page.keyboard.press("Control+k")
        page.locator("#search-input-command").press_sequentially("9F3AE529")
        expect(page.locator("#command-results-list")).to_contain_text("demo.charge_card")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/taskrun/{run.pk}/change/")
        assert visited.troubles == []


def test_home_refreshes_itself(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        page.goto(f"{live_server.url}/admin/systemtasks/systemtask/home/")
        page.mouse.move(0, 0)
        expect(page.locator("#failing")).to_contain_text("No task has failed")
        page.get_by_text("As a table").click()
        change(lambda: history.make())
        expect(page.locator("#failing")).to_contain_text("shop.charge")
        expect(page.locator("#workers")).to_contain_text("celery@dead")
        expect(page.locator("#hours details")).to_have_attribute("open", "")  # as it was
        assert visited.troubles == []
