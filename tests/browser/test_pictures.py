"""The pictures of the docs: five pages over the made history, light, dark and on a phone.

`make pictures` keeps them in docs/pictures. The tests make them, too: no page may have errors.
"""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, sync_playwright
from pytest_django.plugin import DjangoDbBlocker

from systemtasks.demo_history import catalogue
from systemtasks.demo_history.making import History
from systemtasks.models import TaskRun
from systemtasks.states import State
from tests.browser.test_admin import CHROMIUM, Visit
from tests.browser.test_questions import launched, log_in
from tests.made_history import served
from tests.processes import ROOT
from tests.web import Web

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium on PATH"),
]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5,
        "is_mobile": True, "has_touch": True,
    },
}  # fmt: skip
HIGHEST = 1500
"""Pixels of a page that a picture has at most."""
LARGEST = 1_500_000
"""Bytes of all pictures together."""
QUALITY = 0.8
TO_WEBP = """async ([data, quality]) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", quality).split(",")[1];
}"""


def last_run(history: History, kind: catalogue.Kind, state: State) -> TaskRun:
    task = history.tasks[kind]
    runs = [run for run in history.runs if run.system_task == task and run.state == state]
    return max(runs, key=lambda run: run.sort_timestamp or history.begin)


def addresses(history: History) -> dict[str, str]:
    """Return the addresses of the pages, by the names of their pictures."""
    charge = history.tasks[catalogue.CHARGE].pk
    run = last_run(history, catalogue.CLOSE_DAY, State.SUCCESS)
    failing = last_run(history, catalogue.CHARGE, State.FAILURE)
    return {
        "home": "/admin/",
        "list": "/admin/systemtasks/systemtask/",
        "task": f"/admin/systemtasks/systemtask/{charge}/change/",
        "run": f"/admin/systemtasks/taskrun/{run.pk}/change/",
        "failing-run": f"/admin/systemtasks/taskrun/{failing.pk}/change/",
    }


def take(page: Page, converter: Page) -> bytes:
    """Return a picture of the whole page, or of its first HIGHEST pixels, as WebP."""
    width = page.viewport_size["width"]  # type: ignore[index]
    page.set_viewport_size({"width": width, "height": 800})
    height = page.evaluate("document.documentElement.scrollHeight")
    # The window becomes as high, so that what is fixed to its edges is where it belongs.
    page.set_viewport_size({"width": width, "height": min(height, HIGHEST)})
    png = page.screenshot(animations="disabled")
    data = converter.evaluate(TO_WEBP, [base64.b64encode(png).decode(), QUALITY])
    return base64.b64decode(data)


@pytest.fixture(scope="module")
def service(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[History, Web]]:
    """Serve the history. It is written before the test's transaction begins."""
    with served(django_db_blocker, tmp_path_factory.mktemp("web") / "log") as made:
        yield made


def test_pictures_of_the_docs_are_of_pages_without_errors(
    service: tuple[History, Web], tmp_path: Path
) -> None:
    history, web = service
    folder = ROOT / "docs" / "pictures" if os.environ.get("KEEP_PICTURES") else tmp_path
    folder.mkdir(exist_ok=True)
    made: dict[str, int] = {}
    with sync_playwright() as playwright:
        browser = launched(playwright.chromium)
        converter = browser.new_page()
        for look, options in LOOKS.items():
            visit = Visit(browser.new_page(**options))
            page = visit.page
            log_in(page, web.url)
            for name, address in addresses(history).items():
                page.goto(web.url + address)
                page.wait_for_load_state("networkidle")
                assert (
                    page.evaluate("document.documentElement.scrollWidth")
                    <= (options["viewport"]["width"])
                ), name
                picture = take(page, converter)
                (folder / f"{name}-{look}.webp").write_bytes(picture)
                made[f"{name}-{look}"] = len(picture)
            assert visit.troubles == []
            own = {urlsplit(url).netloc for url in visit.addresses if "://" in url}
            assert own == {urlsplit(web.url).netloc}
        browser.close()
    assert len(made) == 15
    assert sum(made.values()) < LARGEST, made
