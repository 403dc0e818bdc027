"""axe-core finds nothing on our pages: WCAG 2.2 AA, light, dark and on a phone."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.utils import timezone
from knox.models import AuthToken
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from systemtasks.admin_parts.acknowledging import acknowledge
from systemtasks.admin_parts.errors import group_of
from systemtasks.ids import new_uuid
from systemtasks.models import RunAgain, SavedView, ScheduleEntry, SystemTask, TaskRun
from systemtasks.states import State
from tests import factories
from tests.browser import test_admin
from tests.browser.test_admin import rows, visit  # noqa: F401 - a fixture
from tests.processes import ROOT
from tests.systemtasks.admin_parts import history

pytestmark = test_admin.pytestmark

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "dark phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def violations(page: Page) -> list[str]:
    """Return what axe finds on a page: each a rule and the elements that break it."""
    page.evaluate(AXE)
    options = json.dumps({"runOnly": LEVELS, "resultTypes": ["violations"]})
    found = page.evaluate(f"axe.run(document, {options})")["violations"]
    return [
        f"{violation['id']}: {node['html']}: {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]


def with_everything() -> tuple[SystemTask, list[TaskRun]]:
    """Return a task, and a failed and a running run of it, whose pages show all that they can."""
    now = timezone.now()
    task = factories.system_task("demo.full", start_timestamp=now, finish_timestamp=now)

    def run(minutes: float, **fields: Any) -> TaskRun:
        start = now - timedelta(minutes=minutes)
        values = {"start_timestamp": start, "sent_timestamp": start, "finish_timestamp": now}
        return factories.task_run(task, **{**values, "duration": 2.0, **fields})

    failure = {"state": State.FAILURE, "status": State.FAILURE.outcome.status, "exception": "E: 7"}
    unfinished = {"status": State.RUNNING.outcome.status, "finish_timestamp": None}
    run(12_000)
    parent = run(50, worker="celery@b", args=["before"])
    run(40, **failure)
    levels = [factories.log_event("A line", log_level=level) for level in ("debug", "error")]
    levels.append(factories.log_event("3 of 10 done", attributes={"done": 3, "total": 10}))
    failed = run(
        20, celery_id="full", attempt=2, root_id="root", parent_id=parent.celery_id,
        context={"tenant": "acme", "run_again_of": str(parent.pk)}, messages=levels,
        kwargs={"items": ["a long text of an argument"] * 40},
        sent_options={"group": "g", "chord": "callback"}, **failure,
    )  # fmt: skip
    run(30, celery_id="full", state=State.RETRY, status=State.RETRY.outcome.status)
    run(10, parent_id="full")
    running = run(1, state=State.RUNNING, messages=levels, **unfinished)
    for _ in range(12):
        run(0, state=State.QUEUED, **{**unfinished, "start_timestamp": None})
    return task, [failed, running]


def of_acting(run: TaskRun) -> None:
    """Save what people do with a failed run, and with the list of runs."""
    same = group_of(run)[0]
    assert same
    acknowledge([same.runs[-1]], "ops", "looking at the bank")
    SavedView.objects.create(model="taskrun", user="ops", name="Mine", query="status=error&q=demo")
    SavedView.objects.create(model="taskrun", user="x", name="All", query="q=a", shared=True)
    for outcome in ({"celery_id": "new"}, {"problem": "No worker knows it."}, {}):
        RunAgain.objects.create(
            key=run.pk, run=new_uuid(), user="ops", timestamp=timezone.now(), **outcome
        )


@pytest.fixture
def addresses(rows: None) -> list[str]:  # noqa: F811
    """Return the addresses of our pages, with rows of each kind."""
    for state in State:
        task = factories.system_task(f"demo.{state}", "eu", description="It does what it is for.")
        factories.task_run(
            task, state=state, status=state.outcome.status, worker="celery@a", exception="E: no"
        )
    ScheduleEntry.objects.create(app="a", entry="e", task="demo.x", words="every day")
    ScheduleEntry.objects.create(app="a", entry="off", task="demo.y", enabled=False)
    failed = SystemTask.objects.get(name="demo.charge_card")
    run = TaskRun.objects.get(system_task=failed)
    full_task, full_runs = with_everything()
    of_acting(full_runs[0])
    factories.token(User.objects.get())
    lists = "/admin/systemtasks"
    history.make()
    pages = [
        f"{lists}/systemtask/home/",
        f"{lists}/systemtask/", f"{lists}/taskrun/", f"{lists}/scheduleentry/",
        f"{lists}/taskrun/?status=error&q=demo", f"{lists}/taskrun/?status=failed",
        f"{lists}/systemtask/{failed.pk}/change/", f"{lists}/taskrun/{run.pk}/change/",
        f"{lists}/taskrun/add/", "/admin/",
        f"{lists}/systemtask/{full_task.pk}/change/", f"{lists}/systemtask/{failed.pk}/run-again/",
        *(f"{lists}/taskrun/{one.pk}/change/" for one in full_runs),
        f"{lists}/taskrun/{full_runs[0].pk}/run-again/",
        f"{lists}/taskrun/{full_runs[0].pk}/acknowledge/?all=1",
        f"{lists}/taskrun/run-again/?same_error={full_runs[0].pk}&row={run.pk}",
        f"{lists}/taskrun/run-again/?row={run.pk}&row={full_runs[1].pk}",
        f"{lists}/taskrun/run-again/{full_runs[0].pk}/",
        f"{lists}/taskrun/?same_error={full_runs[0].pk}&acknowledged=no",
    ]  # fmt: skip
    if apps.is_installed("unfold"):
        token = AuthToken.objects.get()
        pages += ["/admin/knox/authtoken/", f"/admin/knox/authtoken/{token.pk}/change/"]
    return pages


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(live_server: LiveServer, addresses: list[str], look: str) -> None:
    found = {}
    with visit(live_server, **LOOKS[look]) as visited:
        page = visited.page
        for address in addresses:
            page.goto(live_server.url + address)
            if not address.startswith("/admin/systemtasks"):
                found[address] = violations(page)
                continue
            if page.locator(".st-filters").count():
                page.locator(".st-filters summary").click()
            if page.locator(".st-equal").count():
                page.locator(".st-equal summary").click()
            for menu in page.locator(".st-menu:visible summary").all():
                menu.click()
                found[f"{address} {menu.inner_text()}"] = violations(page)
            found[address] = violations(page)
            assert page.locator("h1:visible").count() == 1, address
            assert page.get_by_role("main").count() == 1, address
    wrong = [f"{address}: {text}" for address, texts in found.items() for text in texts]
    assert wrong == [], "\n\n".join(wrong)


def test_first_row_is_three_keys_away(live_server: LiveServer, rows: None) -> None:  # noqa: F811
    with visit(live_server) as visited:
        page = visited.page
        page.goto(page.url)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        focused = "document.activeElement.outerHTML"
        assert "st-skip" in page.evaluate(focused)  # to the rows
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator("#st-rows a").first).to_be_focused()


@pytest.mark.skipif(not apps.is_installed("unfold"), reason="This is another look already")
def test_all_of_this_holds_in_djangos_own_look() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += ["-k", "axe", "--ds=tests.systemtasks.plain_admin_settings"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
