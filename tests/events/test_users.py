"""The API and its commands, with Django's users and with a project's own user models."""

import os
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError, call_command
from django.test import Client

from events.authentication import token_model
from tests import factories

pytestmark = pytest.mark.django_db
TASKS = "/api/v3/events/system_tasks/"
NAME = "reader@example.com"
VIEW = ("view_systemtask", "view_taskrun")
HAS_OWN_PERMISSIONS = settings.AUTH_USER_MODEL.endswith("OwnPermissionsUser")
IS_NEEDY = settings.AUTH_USER_MODEL.endswith("NeedyUser")
ONE_QUERY = "events.backends.OneQueryModelBackend"
OTHERS = [
    ("EmailUser", "django.contrib.auth.backends.ModelBackend"),
    ("EmailUser", ONE_QUERY),
    ("HiddenRelationsUser", ONE_QUERY),
    ("OwnPermissionsUser", ONE_QUERY),
    ("NeedyUser", ONE_QUERY),
]


def make_user(*codenames: str, by_group: bool = False) -> Any:
    """Save a user with these permissions."""
    model: Any = get_user_model()
    user = model(**{model.USERNAME_FIELD: NAME})
    user.set_unusable_password()
    if HAS_OWN_PERMISSIONS:
        user.allowed = " ".join(f"systemtasks.{name}" for name in codenames)
    user.save()
    permissions = Permission.objects.filter(codename__in=codenames)
    if by_group:
        group = Group.objects.create(name="readers")
        group.permissions.set(permissions)
        user.groups.add(group)
    elif not HAS_OWN_PERMISSIONS:
        user.user_permissions.set(permissions)
    return user


def call(*words: str) -> str:
    """Run a command, and return its output."""
    printed = StringIO()
    call_command(*words, stdout=printed, stderr=StringIO())
    return printed.getvalue().strip()


def get(token: str, path: str = TASKS) -> int:
    return Client(headers={"authorization": f"Bearer {token}"}).get(path).status_code


@pytest.mark.parametrize(
    ("codenames", "status"), [(VIEW, 200), (("run_systemtask",), 403), ((), 403)]
)
def test_user_may_what_the_user_model_says(codenames: Sequence[str], status: int) -> None:
    make_user(*codenames)
    assert get(call("create_token", NAME)) == status


@pytest.mark.skipif(HAS_OWN_PERMISSIONS, reason="These users have no groups")
def test_user_may_what_the_users_groups_may() -> None:
    make_user(*VIEW, by_group=True)
    assert get(call("create_token", NAME)) == 200


@pytest.mark.skipif(HAS_OWN_PERMISSIONS or IS_NEEDY, reason="Such a user cannot be created")
def test_created_user_may_view_and_nothing_else() -> None:
    task = factories.system_task()
    token = call("create_token", NAME, "--create-user")
    assert get(token) == get(token, "/api/v3/events/task_runs/") == 200
    answer = Client(headers={"authorization": f"Bearer {token}"}).post(f"{TASKS}{task.uuid}/run/")
    assert answer.status_code == 403
    user: Any = get_user_model()._default_manager.get()
    assert user.get_username() == NAME
    assert not user.has_usable_password()

    assert get(call("create_token", NAME, "--create-user")) == 200
    assert get_user_model()._default_manager.count() == 1


@pytest.mark.skipif(not (HAS_OWN_PERMISSIONS or IS_NEEDY), reason="Such a user can be created")
def test_user_that_cannot_be_created_is_refused_in_a_sentence() -> None:
    with pytest.raises(CommandError, match="by the project's own means") as refused:
        call("create_token", NAME, "--create-user")
    assert ("department: This field cannot be blank" in str(refused.value)) == IS_NEEDY
    assert get_user_model()._default_manager.count() == 0

    make_user(*VIEW)
    assert get(call("create_token", NAME, "--create-user")) == 200


def test_tokens_are_listed_and_revoked_by_the_users_name() -> None:
    make_user(*VIEW)
    token = call("create_token", NAME)
    assert NAME in call("list_tokens")
    assert token[:15] in call("list_tokens", NAME)
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        call("list_tokens", "nobody")

    call("revoke_token", "--user", NAME)
    assert token_model().objects.count() == 0
    assert get(token) == 403


@pytest.mark.slow
@pytest.mark.skipif(settings.AUTH_USER_MODEL != "auth.User", reason="This is another one already")
@pytest.mark.parametrize(("model", "backend"), OTHERS)
def test_all_of_this_holds_for_users_of_another_model(model: str, backend: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        [*command, "--ds=tests.events.accounts_settings"],
        cwd=settings.BASE_DIR,
        env={**os.environ, "USER_MODEL": model, "BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
