"""The admin in a real browser, from the login page on."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from systemtasks.models import Acknowledgement, ScheduleEntry
from systemtasks.states import State, Status
from tests import factories

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PASSWORD = "night-watch-3"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium on PATH"),
]


class Visit:
    """A page, its requests to the server, and its errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.addresses: set[str] = set()
        self.troubles: list[str] = []
        page.on("request", lambda request: self.addresses.add(request.url))
        page.on("requestfailed", self._note_failure)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("response", self._note_response)
        page.on("console", self._note_console)

    def _note_failure(self, request: Any) -> None:
        # Chromium aborts what a page still loads when a click leaves it; nobody sees that.
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"failed: {request.url}: {request.failure}")

    def _note_response(self, response: Any) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status}: {response.url}")

    def _note_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text}")


@contextmanager
def visit(server: LiveServer, **options: Any) -> Iterator[Visit]:
    """Yield the visit of a user who has just logged in.

    Make no query during the visit: Playwright's loop runs in this thread, and Django refuses
    queries there.
    """
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *sandbox])
        visited = Visit(browser.new_context(**options).new_page())
        page = visited.page
        page.goto(f"{server.url}/admin/systemtasks/systemtask/")
        page.get_by_label("Username").fill("ops")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{server.url}/admin/systemtasks/systemtask/")
        page.wait_for_load_state()  # a key that is pressed before the scripts run does nothing
        try:
            yield visited
        finally:
            browser.close()


@pytest.fixture
def rows() -> None:
    User.objects.create_superuser("ops", password=PASSWORD)
    factories.system_task("demo.nightly_report")
    error = {"type": "PermissionError", "message": "no", "traceback": "Traceback\n  …\nlast line"}
    message = factories.log_event(
        "PermissionError: The bank refuses", log_level="error", attributes={"exception": error}
    )
    failed = factories.system_task("demo.charge_card", status=Status.ERROR, messages=[message])
    factories.task_run(failed, status=Status.ERROR, celery_id="9f3ae529-run")


def test_from_login_to_what_the_failed_task_said(live_server: LiveServer, rows: None) -> None:
    with visit(live_server) as visited:
        page = visited.page
        table = page.locator("#result_list")
        expect(table).to_contain_text("demo.nightly_report")
        page.get_by_role("link", name="Failed 1").click()
        expect(table).not_to_contain_text("demo.nightly_report")
        table.get_by_role("link", name="demo.charge_card").click()
        expect(page.locator(".st-log")).to_contain_text("PermissionError: The bank refuses")
        expect(page.locator(".st-log pre")).to_contain_text("last line")
        page.get_by_role("link", name="All its runs").click()
        expect(table).to_contain_text("9f3ae529")
        table.get_by_role("link", name="9f3ae529").click()
        expect(page.locator(".st-page")).to_contain_text("9f3ae529-run")
        assert visited.troubles == []
        assert {urlsplit(url).netloc for url in visited.addresses} == {
            urlsplit(live_server.url).netloc
        }


def test_choice_in_a_filter_takes_effect_with_the_button_alone(
    live_server: LiveServer, rows: None
) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.get_by_text("Filters", exact=True).click()
        started = page.get_by_role("combobox", name="Started")
        started.focus()
        started.press("ArrowDown")
        started.press("ArrowDown")
        expect(started).to_have_value("day")
        assert page.url.endswith("/systemtask/")
        page.get_by_role("button", name="Apply").click()
        page.wait_for_url("**/systemtask/?started=day")
        expect(page.locator("#result_list")).not_to_contain_text("demo.charge_card")
        page.get_by_label("Remove the filter Started: Past 24 hours").click()
        expect(page.locator("#result_list")).to_contain_text("demo.charge_card")
        page.get_by_label("Search").fill("bank refuses")
        page.get_by_label("Search").press("Enter")
        page.wait_for_url("**/systemtask/?q=bank+refuses")
        expect(page.locator("#result_list")).not_to_contain_text("demo.nightly_report")
        assert visited.troubles == []


def test_who_comes_back_sees_the_filters_in_force(live_server: LiveServer, rows: None) -> None:
    with visit(live_server) as visited:
        page = visited.page
        page.get_by_text("Filters", exact=True).click()
        page.get_by_role("combobox", name="Started").select_option("hour")
        page.get_by_label("Search").fill("never sent")
        page.get_by_role("link", name="Failed 1").click()
        page.wait_for_url("**/?status=error")
        page.go_back()
        page.wait_for_url("**/systemtask/")
        expect(page.get_by_label("Search")).to_have_value("")
        expect(page.locator("select[name=started]")).to_have_value("")
        expect(page.locator(".st-chips")).to_have_count(0)


def test_nothing_is_wider_than_a_phone(live_server: LiveServer, rows: None) -> None:
    with visit(live_server, viewport={"width": 400, "height": 860}) as visited:
        page = visited.page
        for click in (None, "demo.charge_card", "9f3ae529"):
            if click:
                page.get_by_role("link", name=click).first.click()
                expect(page.locator(".st-page")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_rows_begin_on_the_first_screen_of_a_phone_and_open_anywhere(
    live_server: LiveServer, rows: None
) -> None:
    with visit(live_server, viewport={"width": 390, "height": 844}, has_touch=True) as visited:
        page = visited.page
        bar, card = page.locator("form.st-bar"), page.locator("#st-rows tr").last
        assert bar.bounding_box()["height"] <= 60  # type: ignore[index]
        box = card.bounding_box()
        assert box
        assert box["y"] < 400
        page.touchscreen.tap(box["x"] + box["width"] - 8, box["y"] + box["height"] - 8)
        expect(page.locator(".st-log")).to_be_visible()
        page.go_back()
        card.locator("time").tap()  # it has a title, and lies above the link
        expect(page.locator(".st-log")).to_be_visible()


OVERLAPS = """() => [...document.querySelectorAll("#st-rows tr")].flatMap((row) => {
    const boxes = [...row.cells].map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return [cell.className, range.getBoundingClientRect()];
    });
    const started = boxes.find(([name]) => name === "field-started");
    return boxes.filter(([name, box]) => box.width > 0 && !/started|select/.test(name)
        && Math.min(box.right, started[1].right) - Math.max(box.left, started[1].left) > 1
        && Math.min(box.bottom, started[1].bottom) - Math.max(box.top, started[1].top) > 1);
})"""


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_text_of_a_card_lies_over_another_on_a_phone(
    live_server: LiveServer, rows: None, language: str
) -> None:
    now = timezone.now()
    first = now - timedelta(minutes=25)
    task = factories.system_task(
        "demo.sync", status=Status.ERROR, start_timestamp=first, finish_timestamp=now
    )
    for minutes in range(25, 45):
        start = now - timedelta(minutes=minutes)
        values = {"state": State.FAILURE, "status": Status.ERROR, "duration": 724.0}
        run = factories.task_run(task, start_timestamp=start, **values)
        Acknowledgement.objects.create(run=run.pk, user="ops", timestamp=now)
    ScheduleEntry.objects.create(
        app="a", entry="e", task="demo.sync", next_due=now + timedelta(minutes=29)
    )
    with visit(live_server, viewport={"width": 360, "height": 740}) as visited:
        page = visited.page
        page.set_extra_http_headers({"Accept-Language": language})
        for name in ("systemtask", "taskrun"):
            page.goto(f"{live_server.url}/admin/systemtasks/{name}/")
            expect(page.locator("#st-rows")).to_contain_text("25")
            assert page.evaluate(OVERLAPS) == []


def test_this_service_itself_serves_every_static_file(live_server: LiveServer, rows: None) -> None:
    with visit(live_server) as visited:
        visited.page.get_by_role("link", name="demo.charge_card").click()
        expect(visited.page.locator(".st-page")).to_be_visible()
    paths = {urlsplit(url).path for url in visited.addresses}
    files = {path for path in paths if path.startswith("/static/")}
    assert "/static/systemtasks/admin.css" in files
    # The live server adds a handler of Django's own; the test client has the middleware alone.
    assert settings.DEBUG is False
    for path in files:
        with closing(Client().get(path)) as response:
            assert response.status_code == 200, path


def test_new_token_is_shown_once_with_its_curl_line(live_server: LiveServer, rows: None) -> None:
    user = User.objects.get()
    with visit(live_server, viewport={"width": 390, "height": 844}) as visited:
        page = visited.page
        page.goto(f"{live_server.url}/admin/knox/authtoken/add/")
        page.locator("[name=user]").fill(str(user.pk))
        page.get_by_role("button", name="Save", exact=True).click()
        token = page.locator("#new-token").inner_text()
        curl = f"curl --header 'Authorization: Bearer {token}' {live_server.url}/api/v3/"
        expect(page.locator(".st-token")).to_contain_text(curl)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.reload()
        expect(page.locator("form#authtoken_form")).to_be_visible()
        assert token not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto(f"{live_server.url}/admin/knox/authtoken/")
        expect(page.get_by_role("link", name=token[:15])).to_have_count(1)
        assert visited.troubles == []
