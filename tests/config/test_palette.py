"""The command palette finds tasks and runs, and no models."""

import re

import pytest
from django.test import Client

from tests import factories
from tests.systemtasks.test_admin import page_of, viewer

pytestmark = pytest.mark.django_db

ID = "9f3ae529-0b1c-4c5e-8d27-6a1f4be0c9d9"


def found(client: Client, text: str) -> list[str]:
    answer = client.get("/admin/search/", {"extended": "1", "s": text})
    assert answer.status_code == 200
    return re.findall(r'href="([^"]+)"', answer.content.decode())


def test_palette_finds_tasks_by_name_and_runs_by_id(admin_client: Client) -> None:
    task = factories.system_task("shop.charge_card", "eu")
    run = factories.task_run(task, celery_id=ID)
    factories.task_run(factories.system_task("demo.other"), celery_id="0c9f3ae5")
    for text in ("charge", "shop.charge_card:eu"):
        assert found(admin_client, text) == [page_of(task)]
    for text in (ID, ID[:8].upper(), str(run.pk)):
        assert found(admin_client, text) == [page_of(run)]
    assert found(admin_client, f"shop.charge_card[{ID}]") == [page_of(run), page_of(task)]
    assert found(admin_client, "shop")[0] == page_of(task)


def test_palette_finds_a_run_at_once_that_it_did_not_find_before(admin_client: Client) -> None:
    assert found(admin_client, ID) == []
    run = factories.task_run(factories.system_task(), celery_id=ID)
    assert found(admin_client, ID) == [page_of(run)]


@pytest.mark.parametrize("text", ["", "a", "task", "users", "\0", "%"])
def test_palette_lists_no_model(admin_client: Client, text: str) -> None:
    assert found(admin_client, text) == []


def test_palette_shows_what_its_user_may_see() -> None:
    task = factories.system_task("shop.charge_card")
    factories.task_run(task, celery_id=ID)
    client = viewer("systemtask")
    assert found(client, ID) == []
    assert found(client, "charge") == [page_of(task)]
    assert Client().get("/admin/search/?s=charge").status_code == 302


def test_palette_shows_characters_that_a_browser_does_not_draw(admin_client: Client) -> None:
    task = factories.system_task("shop.\u202egrahc")
    factories.task_run(task, celery_id="9f3ae529\u202e")
    for text in ("shop.", "9f3ae529"):
        page = admin_client.get("/admin/search/", {"s": text}).content.decode()
        assert "shop.[U+202E]grahc" in page
        assert "\u202e" not in page
