"""The policy of the admin's pages: a browser runs only scripts of this service."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests import factories

pytestmark = pytest.mark.django_db

PAGES = [
    "/admin/login/", "/admin/", "/admin/systemtasks/systemtask/", "/admin/systemtasks/taskrun/",
    "/admin/systemtasks/systemtask/{task}/change/", "/admin/systemtasks/taskrun/{run}/change/",
    "/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/group/add/",
    "/admin/knox/authtoken/", "/admin/knox/authtoken/add/", "/admin/nowhere/", "/nowhere/",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_page_has_a_strict_policy_and_no_script_in_itself(path: str) -> None:
    run = factories.task_run(factories.system_task())
    client = Client()
    if path != "/admin/login/":
        client.force_login(User.objects.create_superuser("ops"))
    answer = client.get(path.format(task=run.system_task_id, run=run.pk))
    assert answer.status_code == (404 if "nowhere" in path else 200)
    policy = answer["Content-Security-Policy"]
    directives = dict(part.strip().split(None, 1) for part in policy.split(";") if part.strip())
    assert "'self'" in directives["script-src"]
    assert "'unsafe-inline'" not in directives["script-src"]
    assert "'nonce-" not in policy
    for name in ("default-src", "base-uri", "frame-ancestors"):
        assert directives[name] == "'none'"
    assert directives["form-action"] == "'self'"
    page = answer.content.decode()
    assert re.findall(r"<script(?![^>]*\ssrc=)[^>]*>", page) == []
    assert re.findall(r"<[^>]*\son[a-z]+=", page) == []
    assert "javascript:" not in page


def test_page_is_in_no_frame() -> None:
    assert Client().get("/admin/login/")["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/auth/user/add/"])
def test_form_without_its_token_is_refused(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("ops"))
    refused = client.post(path, {"username": "somebody", "password": "secret"})
    assert refused.status_code == 403
    assert b"CSRF" in refused.content


def test_language_of_a_page_is_not_that_of_the_api() -> None:
    client = Client(headers={"accept-language": "de"})
    assert 'lang="de"' in client.get("/admin/login/").content.decode()
    refused = client.get("/api/v3/events/system_tasks/").json()
    assert refused["detail"] == "Authentication credentials were not provided."


def test_page_of_the_admin_that_somebody_may_not_see_says_so_in_its_look() -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    for path in ("/admin/auth/user/", "/admin/knox/authtoken/"):
        answer = client.get(path)
        assert answer.status_code == 403
        page = answer.content.decode()
        assert "You may not see this page" in page
        assert 'href="/admin/"' in page


def test_sidebar_has_what_is_looked_for_first_and_users_and_tokens_last(
    admin_client: Client,
) -> None:
    page = admin_client.get("/admin/systemtasks/systemtask/home/")
    titles = [
        item["title"] for group in page.context["sidebar_navigation"] for item in group["items"]
    ]
    assert titles[:8] == [
        "Home", "Failing", "Running", "Queues", "Workers", "Tasks", "Runs", "Schedule",
    ]  # fmt: skip
    assert titles[8:] == ["Users", "Groups", "Tokens"]
    current = [
        i["title"] for g in page.context["sidebar_navigation"] for i in g["items"] if i["active"]
    ]
    assert current == ["Home"]


def test_admin_opens_with_the_home_page(admin_client: Client) -> None:
    page = admin_client.get("/admin/")
    assert "systemtasks/home.html" in [template.name for template in page.templates]
    items = [item for group in page.context["sidebar_navigation"] for item in group["items"]]
    assert [item["link"] for item in items if item["active"]] == ["/admin/"]
    assert [item["link"] for item in items[1:2]] == ["/admin/#failing"]
    part = admin_client.get("/admin/", headers={"X-Systemtasks-Live": "1"})
    assert "systemtasks/home.html" not in [template.name for template in part.templates]


def test_admin_opens_with_its_own_list_for_whoever_may_not_view_tasks() -> None:
    client = Client()
    client.force_login(factories.user("clerk", "view_user", is_staff=True))
    page = client.get("/admin/")
    assert page.status_code == 200
    assert "systemtasks/home.html" not in [template.name for template in page.templates]
    assert "/admin/auth/user/" in page.content.decode()


def test_list_of_tokens_has_a_title_that_is_german_too(admin_client: Client) -> None:
    page = admin_client.get("/admin/knox/authtoken/", headers={"Accept-Language": "de"})
    assert page.context["title"] == "Tokens"
    titles = [i["title"] for g in page.context["sidebar_navigation"] for i in g["items"]]
    assert titles[-1] == "Tokens"


def test_sidebar_offers_nobody_what_they_may_not_see() -> None:
    client = Client()
    client.force_login(factories.user("viewer", "view_systemtask", is_staff=True))
    page = client.get("/admin/systemtasks/systemtask/home/")
    shown = [
        item["title"] for group in page.context["sidebar_navigation"] for item in group["items"]
    ]
    assert shown == ["Home", "Failing", "Tasks", "Schedule"]
