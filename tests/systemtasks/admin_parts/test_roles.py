"""The roles as groups, and what a page says to somebody who may not see it."""

from io import StringIO

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.test import Client

from tests import factories
from tests.systemtasks.test_admin import RUNS, TASKS, page_of, viewer

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = StringIO()
    call_command("systemtasks_roles", *words, stdout=out)
    return out.getvalue()


def client_of(role: str) -> tuple[Client, User]:
    user = User.objects.create_user(f"some-{role}")
    run(user.username, role)
    client = Client()
    client.force_login(user)
    return client, User.objects.get(pk=user.pk)


def test_viewer_sees_all_and_may_change_nothing() -> None:
    client, user = client_of("viewer")
    task = factories.system_task()
    for url in (TASKS, RUNS, page_of(task), page_of(factories.task_run(task))):
        assert client.get(url).status_code == 200
    assert all(".view_" in name for name in user.get_all_permissions())
    assert client.get("/admin/auth/user/").status_code == 403


def test_operator_may_also_run_again() -> None:
    _, user = client_of("operator")
    assert user.has_perm("systemtasks.view_taskrun")
    assert user.has_perm("systemtasks.run_systemtask")
    assert user.has_perm("systemtasks.acknowledge_taskrun")
    assert not user.has_perm("systemtasks.share_savedview")
    assert not user.has_perm("auth.change_user")
    assert not user.has_perm("systemtasks.change_taskrun")


def test_administrator_may_also_manage_users_and_tokens() -> None:
    client, user = client_of("administrator")
    assert user.has_perms(
        ["systemtasks.run_systemtask", "systemtasks.share_savedview", "auth.change_user",
         "knox.add_authtoken", "knox.delete_authtoken", "systemtasks_api.change_tokengrant",
         "systemtasks.view_taskrun"]
    )  # fmt: skip
    assert not user.has_perm("systemtasks.change_taskrun")
    assert client.get("/admin/auth/user/").status_code == 200
    assert client.get("/admin/knox/authtoken/").status_code == 200


def test_command_may_run_again_and_takes_nothing_away() -> None:
    out = run()
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "System Tasks viewer", "System Tasks operator", "System Tasks administrator",
    ]  # fmt: skip
    group = Group.objects.get(name="System Tasks viewer")
    group.permissions.add(Permission.objects.get(codename="view_session"))
    member = User.objects.create_user("member")
    member.groups.add(group)
    assert run() == out
    assert Group.objects.count() == 3
    assert member.has_perm("sessions.view_session")


def test_user_and_role_are_checked_before_anything_is_made() -> None:
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        run("nobody", "viewer")
    with pytest.raises(CommandError, match="Name a role as well"):
        run("nobody")
    assert not Group.objects.exists()


def test_page_that_somebody_may_not_see_says_so_in_the_admins_look() -> None:
    task = factories.system_task()
    client = viewer()
    pages = (TASKS, RUNS, page_of(task), f"{RUNS}export.csv", f"{TASKS}add/", f"{TASKS}x/delete/")
    for url in pages:
        answer = client.get(url)
        assert answer.status_code == 403
        page = answer.content.decode()
        assert "You may not see this page" in page
        assert "The user viewer has no permission for it." in page
        assert 'href="/admin/"' in page
        assert "logout" in page  # the look of the admin, with its header
        assert task.name not in page
