"""Saved views: who sees, shares and deletes them, and what one with a lost filter says."""

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from systemtasks.admin_parts import saved_views
from systemtasks.models import VIEW_NAME_LIMIT, SavedView
from tests import factories
from tests.systemtasks.admin_parts.test_run_again import VIEWS, client_of
from tests.systemtasks.test_admin import RUNS, TASKS, body, viewer

pytestmark = pytest.mark.django_db

SCHEDULE = "/admin/systemtasks/scheduleentry/"


def save(client: Client, url: str = RUNS, name: str = "Bank", **fields: Any) -> Any:
    values = {"query": "status=error&q=bank&p=3", **fields}
    return client.post(f"{url}views/", {"name": name, **values}, follow=True)


def views(client: Client, url: str = RUNS) -> dict[str, str]:
    """Return the addresses of the views that the page of a list has, by name."""
    page = body(client, url)
    if 'aria-label="Saved views"' not in page:
        return {}
    nav = page[page.index('aria-label="Saved views"') :].partition("</nav>")[0]
    found = re.findall(r'href="([^"]*)"[^>]*>([^<]*?)\s*<', nav)
    return {unescape(name): unescape(query) for query, name in found}


def test_filters_are_saved_under_a_name_and_are_above_the_list(staff: Client) -> None:
    factories.task_run(factories.system_task())
    page = body(staff, f"{RUNS}?status=error&p=2")
    assert 'name="query" value="status=error"' in page
    answer = save(staff)
    assert answer.redirect_chain == [(f"{RUNS}?status=error&q=bank", 302)]
    assert "The view is saved: Bank" in answer.content.decode()
    assert views(staff) == {"Bank": "?status=error&q=bank"}
    assert views(staff, TASKS) == {}
    assert 'aria-current="true">Bank' in body(staff, f"{RUNS}?q=bank&status=error")
    save(staff, query="status=warning")  # its name is taken over
    assert views(staff) == {"Bank": "?status=warning"}


@pytest.mark.parametrize("url", [TASKS, SCHEDULE])
def test_every_list_has_views(staff: Client, url: str) -> None:
    save(staff, url, query="q=a")
    assert views(staff, url) == {"Bank": "?q=a"}


def test_view_is_of_its_user_alone_unless_it_is_shared(staff: Client) -> None:
    other = client_of(*VIEWS)
    save(staff)
    assert views(other) == {}
    own = SavedView.objects.get()
    assert other.post(f"{RUNS}views/{own.pk}/delete/").status_code == 404
    assert save(other, shared="on").status_code == 403
    boss = client_of(*VIEWS, "share_savedview", username="boss")
    assert 'name="shared"' in body(boss, f"{RUNS}?q=a")
    assert 'name="shared"' not in body(other, f"{RUNS}?q=a")
    save(boss, name="For the night", shared="on")
    assert "For the night" in views(other)
    assert "For the night" in views(staff)
    shared = SavedView.objects.get(shared=True)
    assert f"views/{shared.pk}/delete/" not in body(other, RUNS)
    assert other.post(f"{RUNS}views/{shared.pk}/delete/").status_code == 403
    assert boss.post(f"{RUNS}views/{shared.pk}/delete/").status_code == 302
    assert views(other) == {}


def test_view_is_deleted_and_leaves_the_list_as_it_was(staff: Client) -> None:
    save(staff)
    view = SavedView.objects.get()
    assert f'action="{RUNS}views/{view.pk}/delete/"' in body(staff, RUNS)
    answer = staff.post(f"{RUNS}views/{view.pk}/delete/", {"query": "status=error"})
    assert answer.headers["location"] == f"{RUNS}?status=error"
    assert not SavedView.objects.exists()
    assert staff.post(f"{RUNS}views/{view.pk}/delete/").status_code == 404


def test_view_whose_filter_is_gone_says_so(staff: Client) -> None:
    factories.task_run(factories.system_task())
    for query in ("colour=red", "status=failed"):
        SavedView.objects.create(model="taskrun", user="viewer", name="Old", query=query)
        page = body(staff, RUNS + views(staff)["Old"])
        assert "This list cannot be filtered by" in page
        assert '<small data-live="count">0</small>' in page
        SavedView.objects.all().delete()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": " "}, "The name of a view has 1 to 80 characters."),
        ({"name": "n" * (VIEW_NAME_LIMIT + 1)}, "The name of a view has 1 to 80 characters."),
        ({"query": ""}, "There is no filter to be saved."),
        ({"query": "p=3"}, "There is no filter to be saved."),
        ({"query": "q=" + "x" * 3000}, "There is no filter to be saved."),
        ({"query": "q=" + "x" * 9000}, "There is no filter to be saved."),
    ],
)
def test_what_cannot_be_saved_says_why(staff: Client, fields: dict[str, str], text: str) -> None:
    answer = staff.post(f"{RUNS}views/", {"name": "a", "query": "q=a", **fields})
    assert text in body(staff, RUNS)
    assert answer.status_code == 302
    assert not SavedView.objects.exists()


def test_number_of_views_is_bounded(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_views, "MOST", 2)
    for name in ("a", "b", "c"):
        answer = save(staff, name=name)
    assert "You have 2 views already." in answer.content.decode()
    save(staff, name="a", query="q=new")
    assert views(staff) == {"a": "?q=new", "b": "?status=error&q=bank"}


def test_name_and_query_are_text_and_lead_nowhere_else(staff: Client) -> None:
    answer = save(staff, name="<script>alert(1)</script>", query="//evil.example/?q=<b>\0")
    assert answer.redirect_chain[0][0].startswith(f"{RUNS}?")
    page = body(staff, RUNS)
    assert "<script>alert(1)" not in page
    assert "<b>" not in page.partition('aria-label="Saved views"')[2].partition("</nav>")[0]


def test_who_may_not_view_the_list_saves_and_deletes_nothing() -> None:
    SavedView.objects.create(model="taskrun", user="viewer", name="Old", query="q=a")
    client = viewer("systemtask")
    assert save(client).status_code == 403
    assert client.post(f"{RUNS}views/{SavedView.objects.get().pk}/delete/").status_code == 403
    assert SavedView.objects.count() == 1


def test_nothing_changes_by_a_link_or_without_the_token_of_the_form(staff: Client) -> None:
    save(staff)
    view = SavedView.objects.get()
    for url in (f"{RUNS}views/", f"{RUNS}views/{view.pk}/delete/"):
        assert staff.get(url).status_code == 404
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = staff.cookies
        assert strict.post(url, {"name": "x", "query": "q=x"}).status_code == 403
    assert SavedView.objects.get() == view
