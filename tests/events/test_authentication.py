"""Requests with a valid token are accepted, and all others get 403."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from knox.models import AuthToken
from pytest_django import Settings

from events import authentication
from events.prepared import prepared
from tests import factories

URL = "/api/v3/events/system_tasks/"
pytestmark = pytest.mark.django_db


def ask(header: str | None) -> Any:
    headers = {} if header is None else {"authorization": header}
    return Client(raise_request_exception=False).get(URL, headers=headers)


def assert_refused(answer: Any, code: str) -> None:
    assert answer.status_code == 403
    assert "WWW-Authenticate" not in answer
    body = answer.json()
    assert sorted(body) == ["code", "detail"]
    assert body["code"] == code
    assert body["detail"]


@pytest.fixture
def user() -> User:
    return factories.user("reader", "view")


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}", " Bearer {} "])
def test_a_token_is_accepted_with_its_scheme_in_any_case(user: User, form: str) -> None:
    assert ask(form.format(factories.token(user))).status_code == 200


def test_no_header_is_not_authenticated() -> None:
    assert_refused(ask(None), "not_authenticated")


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer\ta",
        "Bearer tök",
        "Bearer \x00",
        "Bearer abc\x00def",
        "Bearer \xff\xfe",
        "Bearer =",
        "Basic dXNlcjpwYXNz",
        "Token {}",
        "{}",
        "Bearer{}",
        "Bearer {}=",
        "Bearer {}0",
        "Bearer 0{}",
    ],
)
def test_every_other_header_is_authentication_failed(user: User, header: str) -> None:
    assert_refused(ask(header.format(factories.token(user))), "authentication_failed")


def test_a_token_known_by_its_beginning_only_is_refused(user: User) -> None:
    token = factories.token(user)
    assert_refused(ask(f"Bearer {token[:15]}"), "authentication_failed")
    assert_refused(ask(f"Bearer {token[:15]}{'0' * 49}"), "authentication_failed")


def test_two_tokens_that_begin_alike_are_both_accepted(user: User) -> None:
    first, second = factories.token(user), factories.token(user)
    AuthToken.objects.update(token_key="")
    for token in (first, second):
        AuthToken.objects.update(token_key=token[:15])
        assert ask(f"Bearer {token}").status_code == 200


def test_an_expired_token_is_refused_and_stays_on_record(user: User) -> None:
    token = factories.token(user, timedelta(seconds=-1))
    assert_refused(ask(f"Bearer {token}"), "authentication_failed")
    assert AuthToken.objects.count() == 1


def test_a_token_works_until_its_time_is_over(user: User) -> None:
    assert ask(f"Bearer {factories.token(user, timedelta(hours=1))}").status_code == 200


def test_an_inactive_users_token_is_refused(user: User) -> None:
    token = factories.token(user)
    User.objects.update(is_active=False)
    assert_refused(ask(f"Bearer {token}"), "authentication_failed")


def test_a_user_without_the_permission_is_refused() -> None:
    assert_refused(ask(f"Bearer {factories.token(factories.user())}"), "permission_denied")


def test_a_permission_held_by_a_group_counts() -> None:
    user, group = factories.user(), Group.objects.create(name="readers")
    group.permissions.add(Permission.objects.get(codename="view_systemtask"))
    user.groups.add(group)
    assert ask(f"Bearer {factories.token(user)}").status_code == 200


def test_a_superuser_needs_no_permission() -> None:
    user = User.objects.create_superuser("root")
    assert ask(f"Bearer {factories.token(user)}").status_code == 200


DJANGOS = "django.contrib.auth.backends.ModelBackend"
OURS = "events.backends.OneQueryModelBackend"
DENYING = "tests.events.test_authentication.DenyingBackend"
BY_NAME = "tests.events.test_authentication.ByNameBackend"


@pytest.mark.parametrize(
    ("backends", "allowed"),
    [
        ([DJANGOS], {"reader"}),
        ([OURS], {"reader"}),
        ([DENYING, OURS], set()),
        ([BY_NAME], {"owl"}),
        ([BY_NAME, OURS], {"owl", "reader"}),
    ],
)
def test_the_projects_backends_say_what_a_user_may(
    user: User,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    backends: list[str],
    allowed: set[str],
) -> None:
    settings.AUTHENTICATION_BACKENDS = backends
    written_anew: Any = prepared(vars(authentication.read_tokens)["__wrapped__"])
    monkeypatch.setattr(authentication, "read_tokens", written_anew)
    users = [user, factories.user("owl"), factories.user("lark")]
    answers = {each.username: ask(f"Bearer {factories.token(each)}").status_code for each in users}
    assert answers == {name: 200 if name in allowed else 403 for name in answers}


class DenyingBackend(BaseBackend):
    """Forbids everything, even if other backends allow it."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        raise PermissionDenied


class ByNameBackend(BaseBackend):
    """Allows by the user's name instead of a table of permissions."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return bool(user_obj.get_username() == "owl")


def test_a_user_model_with_a_has_perm_of_its_own_is_asked(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def has_perm(self: User, perm: str, obj: object = None) -> bool:
        asked.append(perm)
        return self.email == "boss@example.com"

    monkeypatch.setattr(User, "has_perm", has_perm)
    token = factories.token(user)
    assert_refused(ask(f"Bearer {token}"), "permission_denied")
    User.objects.update(email="boss@example.com")
    assert ask(f"Bearer {token}").status_code == 200
    assert set(asked) == {"systemtasks.view_systemtask"}


def test_a_session_is_no_token() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert_refused(client.get(URL), "not_authenticated")


def test_a_user_with_many_tokens_costs_one_query_and_loses_none(user: User) -> None:
    for _ in range(3):
        factories.token(user, timedelta(seconds=-1))
    token = factories.token(user)
    with CaptureQueriesContext(connection) as queries:
        assert ask(f"Bearer {token}").status_code == 200
    assert len([query for query in queries if "knox_authtoken" in query["sql"]]) == 1
    assert AuthToken.objects.count() == 4


latin = st.text(st.characters(max_codepoint=255))


@pytest.mark.slow
@given(header=st.one_of(latin, latin.map("Bearer {}".format), st.text()))
@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_header_whatever_gets_in_or_breaks(header: str) -> None:
    assert_refused(ask(header), "authentication_failed")
