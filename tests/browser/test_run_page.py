"""The page of a run in a real browser: it lives, its log is filtered and copied, it runs again."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from systemtasks.models import TaskRun
from systemtasks.rerun import Sent
from systemtasks.states import State, Status
from tests import factories
from tests.browser import test_admin
from tests.browser.test_admin import rows, visit  # noqa: F401 - a fixture
from tests.browser.test_live import change

pytestmark = test_admin.pytestmark

LOG = [
    factories.log_event("Opening", log_level="debug"),
    factories.log_event("Charging", attributes={"order": 7}),
    factories.log_event("Slow", log_level="warning"),
    factories.log_event("Refused", log_level="error"),
]


def add_run(**fields: Any) -> TaskRun:
    task = factories.system_task("demo.sync")
    start = timezone.now() - timedelta(seconds=70)
    values: dict[str, Any] = {"start_timestamp": start, "finish_timestamp": start, "messages": LOG}
    return factories.task_run(task, **{**values, **fields})


def open_run(live_server: LiveServer, page: Page, run: TaskRun) -> None:
    page.goto(f"{live_server.url}/admin/systemtasks/taskrun/{run.pk}/change/")


def test_running_run_gets_its_messages_its_time_and_its_end_without_a_reload(
    live_server: LiveServer,
    rows: None,  # noqa: F811
) -> None:
    running = {"state": State.RUNNING, "status": Status.UNKNOWN, "finish_timestamp": None}
    run = add_run(**running, messages=LOG[:2])
    later = TaskRun.objects.filter(pk=run.pk)
    with visit(live_server) as visited:
        page = visited.page
        open_run(live_server, page, run)
        page.evaluate("window.isTheSamePage = true")
        elapsed = page.locator("[data-elapsed]")
        before = elapsed.inner_text()
        expect(elapsed).not_to_have_text(before)
        change(lambda: later.update(messages=LOG[:3]))
        expect(page.locator(".st-line")).to_have_count(3)
        ended = {"state": State.FAILURE, "status": Status.ERROR, "exception": "E: no"}
        now = timezone.now()
        change(lambda: later.update(messages=LOG, finish_timestamp=now, duration=71.0, **ended))
        expect(page.locator(".st-line")).to_have_count(4)
        expect(page.locator(".st-worst")).to_have_text("E: no")
        expect(page.locator(".st-facts")).to_contain_text("1 min 11 s")
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        assert page.evaluate("window.isTheSamePage")
        assert visited.troubles == []


def test_log_is_filtered_by_level_and_copied_as_it_is_shown(
    live_server: LiveServer,
    rows: None,  # noqa: F811
) -> None:
    run = add_run()
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    with visit(live_server, **options) as visited:
        page = visited.page
        open_run(live_server, page, run)
        lines = page.locator(".st-line:visible")
        for button, count in (("Errors", 1), ("Info and worse", 3), ("Warnings and errors", 2)):
            page.get_by_role("button", name=button, exact=True).click()
            expect(lines).to_have_count(count)

        def copied(button: str) -> str:
            page.get_by_role("button", name=button).click()
            expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
            return str(page.evaluate("navigator.clipboard.readText()"))

        text = copied("Copy as text").splitlines()
        assert [line.split()[-1] for line in text] == ["Slow", "Refused"]
        page.get_by_role("button", name="All", exact=True).click()
        assert "Charging order=7" in copied("Copy as text")
        page.evaluate("navigator.clipboard.writeText('')")
        page.get_by_role("button", name="Copy as JSON").click()
        page.wait_for_function("navigator.clipboard.readText().then((t) => t.includes('order'))")

        page.get_by_text("Copy", exact=True).click()
        assert copied("Link") == page.url
        page.get_by_text("Copy", exact=True).click()
        assert copied("Celery id") == run.celery_id
        wrap = page.get_by_role("button", name="Wrap")
        wrap.click()
        expect(wrap).to_have_attribute("aria-pressed", "false")
        expect(page.locator(".st-log")).to_have_class("st-log st-unwrapped")
        assert visited.troubles == []


def test_run_is_run_again_once_after_it_is_confirmed(
    live_server: LiveServer,
    rows: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Sent] = []

    def send_again(what: Sent, context: Any) -> str:
        sent.append(what)
        return "new-id"

    monkeypatch.setattr("systemtasks.admin_parts.run_again.send_again", send_again)
    run = add_run(args=[4711])
    with visit(live_server) as visited:
        page = visited.page
        open_run(live_server, page, run)
        page.get_by_role("link", name="Run again").click()
        expect(page.locator(".st-arguments")).to_contain_text("4711")
        page.get_by_role("button", name="Run again").dblclick()
        page.wait_for_url(f"**/taskrun/{run.pk}/change/")
        expect(page.get_by_text("Sent again as")).to_be_visible()
        assert [what.args for what in sent] == [[4711]]
        assert visited.troubles == []
