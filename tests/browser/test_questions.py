"""The ten questions that wake somebody up, over the made history.

Each is answered by at most three clicks, or by one search, from the page with which the admin
opens.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connections
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pytest_django.plugin import DjangoDbBlocker

from config.celery import app
from systemtasks.demo_history import catalogue
from systemtasks.demo_history.making import History
from systemtasks.states import State
from tests.browser.test_admin import ARGUMENTS, CHROMIUM, Visit
from tests.made_history import PASSWORD, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium on PATH"),
]

MOST_CLICKS = 3


@dataclass
class Asking:
    """The page of somebody who has a question, and counts what it takes to see the answer."""

    page: Page
    history: History
    clicks: int = 0
    searches: int = 0

    def click(self, locator: Locator) -> None:
        """Click a link or a button."""
        assert not self.searches, "It takes a search and clicks"
        self.clicks += 1
        assert self.clicks <= MOST_CLICKS, f"It takes {self.clicks} clicks"
        locator.click()
        self.page.wait_for_load_state()

    def search(self, text: str) -> None:
        """Type a text into the search, and press Enter."""
        assert not self.clicks, "It takes clicks and a search"
        self.searches += 1
        assert self.searches == 1, "It takes more than one search"
        self.page.keyboard.press("/")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url("**/?q=**")

    def row(self, part: str, text: str) -> Locator:
        """Return the row with this text in a part of the home page."""
        return self.page.locator(f"#{part} tbody tr").filter(has_text=text)


@dataclass
class Served:
    """The service over the history, and the page of somebody who has logged in."""

    url: str
    history: History
    visit: Visit


@pytest.fixture(scope="module")
def service(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """Serve the history, and log in once, for all questions."""
    log: Path = tmp_path_factory.mktemp("service") / "web.log"
    with (
        pytest.MonkeyPatch.context() as patch,
        served(django_db_blocker, log) as (history, web),
        sync_playwright() as playwright,
    ):
        # Its loop runs in this thread, in which each test begins and ends a transaction.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "yes")
        browser = launched(playwright.chromium)
        visit = Visit(browser.new_page(viewport={"width": 1280, "height": 900}))
        log_in(visit.page, web.url)
        yield Served(web.url, history, visit)
        browser.close()
        connections.close_all()  # those of the loop are others than those of this thread


def launched(chromium: object) -> Browser:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser: Browser = chromium.launch(  # type: ignore[attr-defined]
        executable_path=CHROMIUM, args=[*ARGUMENTS, *sandbox]
    )
    return browser


def log_in(page: Page, url: str) -> None:
    """Log in as the superuser of the history. The admin opens with the home page."""
    page.goto(f"{url}/admin/")
    page.get_by_label("Username").fill("ops")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/admin/")


@pytest.fixture
def ask(service: Served) -> Iterator[Asking]:
    """Yield the page at home. Then no page has had an error or asked another server."""
    page = service.visit.page
    page.goto(f"{service.url}/admin/")
    page.wait_for_load_state()
    yield Asking(page, service.history)
    assert service.visit.troubles == []
    assert {urlsplit(url).netloc for url in service.visit.addresses if "://" in url} == {
        urlsplit(service.url).netloc
    }


def last_run(history: History, kind: catalogue.Kind, state: State) -> "tuple[str, dict[str, str]]":
    """Return the Celery id and the sender's context of the last run in this state."""
    task = history.tasks[kind]
    runs = [run for run in history.runs if run.system_task == task and run.state == state]
    run = max(runs, key=lambda one: one.sort_timestamp or history.begin)
    return run.celery_id, run.context


def test_what_is_failing_now(ask: Asking) -> None:
    expect(ask.row("failing", "billing.charge_card")).to_contain_text("9 of 12")
    expect(ask.row("failing", "ldap.sync_directory:eu")).to_contain_text("hours ago")
    assert (ask.clicks, ask.searches) == (0, 0)


def test_did_the_nightly_job_run(ask: Asking) -> None:
    ask.search("nightly_report")
    newest = ask.page.locator("#st-rows tr").first
    expect(newest.locator(".st-badge")).to_have_text("Error")
    name = catalogue.REPORT.name
    runs = [run for run in ask.history.runs if run.system_task.name == name]
    start = max(run.start_timestamp for run in runs if run.start_timestamp)
    expect(newest.locator("time")).to_have_attribute("title", f"{start:%Y-%m-%d %H:%M:%S UTC}")


def test_why_did_it_fail(ask: Asking) -> None:
    ask.click(ask.row("failing", "billing.charge_card").get_by_role("link").first)
    expect(ask.page.locator(".st-worst")).to_contain_text("PaymentError: The bank refuses order")
    expect(ask.page.locator(".st-log pre")).to_contain_text("Traceback (most recent call last)")


def test_has_it_failed_like_this_before(ask: Asking) -> None:
    ask.click(ask.row("failing", "billing.charge_card").get_by_role("link").first)
    errors = ask.page.locator(".st-errors tbody tr")
    expect(errors.first).to_contain_text("PaymentError: The bank refuses order …: card expired")
    number = int(errors.first.locator("td").first.inner_text())
    assert number > 27  # those of the past three hours
    ask.click(errors.first.locator("td").nth(3).get_by_role("link"))  # the newest run
    expect(ask.page.locator(".st-same")).to_contain_text(f"The same error {number} times since")


def test_is_anything_slower_than_usual(ask: Asking) -> None:
    row = ask.row("slower", "search.reindex_products")
    expect(row).to_contain_text(re.compile(r"2\.[2-6] ×"))  # noqa: RUF001
    expect(ask.page.locator("#slower tbody tr").first).to_contain_text("search.reindex_products")


def test_is_a_worker_dead_or_a_queue_stuck(ask: Asking) -> None:
    expect(ask.page.locator("#workers tbody tr").first).to_contain_text("celery@worker-3")
    expect(ask.row("workers", "silent")).to_have_count(1)
    expect(ask.row("workers", "silent")).to_contain_text("3\N{NO-BREAK SPACE}hours ago")
    expect(ask.page.locator("#queues tbody tr").first).to_contain_text("media")
    expect(ask.row("queues", "media")).to_contain_text("31")
    expect(ask.row("queues", "media")).to_contain_text("5\N{NO-BREAK SPACE}hours ago")
    expect(ask.page.locator("#queues td.st-worry")).to_have_count(2)  # of one queue


def test_run_it_again(ask: Asking) -> None:
    ask.click(ask.row("failing", "ldap.sync_directory:eu").get_by_role("link").first)
    ask.click(ask.page.get_by_role("link", name="Run again", exact=True))
    ask.click(ask.page.get_by_role("button", name="Run again"))
    expect(ask.page.get_by_text("Sent again as")).to_be_visible()
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("default")
        assert queue.clear() == 1


def test_who_sent_it(ask: Asking) -> None:
    _, context = last_run(ask.history, catalogue.CHARGE, State.FAILURE)
    ask.click(ask.row("failing", "billing.charge_card").get_by_role("link", name="9"))
    ask.click(ask.page.locator("#st-rows a").first)
    facts = ask.page.locator("dl.st-facts").first
    expect(facts).to_contain_text(re.compile(r"Sent by\s*gen\d+@web-1"))
    expect(facts.get_by_role("link", name=context["user"])).to_be_visible()
    expect(facts.get_by_role("link", name=context["tenant"])).to_be_visible()


def test_what_has_this_id(ask: Asking) -> None:
    celery_id, _ = last_run(ask.history, catalogue.VIDEO, State.SUCCESS)
    ask.search(celery_id.upper())
    rows = ask.page.locator("#st-rows tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("media.transcode_video")
    expect(rows.locator("code")).to_have_attribute("title", celery_id)


def test_what_is_of_this_tenant(ask: Asking) -> None:
    _, context = last_run(ask.history, catalogue.CHARGE, State.FAILURE)
    ask.click(ask.row("failing", "billing.charge_card").get_by_role("link", name="9"))
    ask.click(ask.page.locator("#st-rows a").first)
    ask.click(ask.page.locator("dl.st-facts").get_by_role("link", name=context["tenant"]))
    day = [
        run for run in ask.history.runs
        if run.context.get("tenant") == context["tenant"] and run.sort_timestamp
        and run.sort_timestamp.timestamp() > ask.history.now.timestamp() - 86_400
    ]  # fmt: skip
    count = int(ask.page.locator(".st-title small").inner_text())
    assert len(day) - 5 <= count <= len(day)  # the day goes on


def test_the_palette_finds_what_is_of_a_tenant(ask: Asking) -> None:
    ask.page.keyboard.press("Control+k")
    ask.page.keyboard.type("tenant:acme")
    found = ask.page.get_by_role("link", name="tenant:acme")
    expect(found).to_be_visible()
    found.click()
    expect(ask.page.locator("#st-rows tr")).to_have_count(50)
