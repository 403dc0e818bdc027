"""The commands create_token, list_tokens and revoke_token."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from knox.crypto import hash_token
from knox.models import AuthToken

from events.models import TokenGrant
from events.tokens import future_time, utc_time
from events.usage import usage
from events.views import SystemTaskViewSet
from tests import factories

pytestmark = pytest.mark.django_db
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


def run(*command: str) -> tuple[str, str]:
    """Run the command, and return its standard output and standard error."""
    out, err = StringIO(), StringIO()
    call_command(*command, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def status_of(token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return Client().get("/api/v3/events/system_tasks/", headers=headers).status_code


@pytest.fixture
def reader() -> User:
    return factories.user("reader", "view")


@pytest.mark.usefixtures("reader")
def test_a_new_token_is_all_of_standard_output_and_works() -> None:
    out, err = run("create_token", "reader")
    assert status_of(out.removesuffix("\n")) == 200
    assert "until it is revoked" in err
    assert out.strip() not in err
    assert AuthToken.objects.get().expiry is None


@pytest.mark.usefixtures("reader")
def test_a_token_expires_when_it_was_said_to() -> None:
    out, _ = run("create_token", "reader", "--expires", "12h")
    expiry = AuthToken.objects.get().expiry
    assert abs(expiry - timezone.now() - timedelta(hours=12)) < timedelta(minutes=1)
    assert status_of(out.strip()) == 200


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:30", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
        ("2027-01-31T18:30:05Z", datetime(2027, 1, 31, 18, 30, 5, tzinfo=UTC)),
        ("2027-01-31T18:30+02:00", datetime(2027, 1, 31, 16, 30, tzinfo=UTC)),
    ],
)
def test_expires_takes_a_span_a_date_and_a_date_time(text: str, time: datetime) -> None:
    assert future_time(text, NOW) == time


@pytest.mark.parametrize("text", ["0d", "0h", "2027-01-01", "2027-01-01T12:00Z", "1999-12-31"])
def test_expires_in_the_past_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=f"must be in the future, and '{text}' is not"):
        future_time(text, NOW)


@pytest.mark.parametrize(
    "text",
    ["", "d", "90", "90 d", "90m", "-1d", "1.5d", "2027-02-30", "tomorrow", "9999999d", "\u0663d"],
)
def test_a_malformed_expires_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="must be like 90d, 12h, 2027-01-31 or"):
        future_time(text, NOW)


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9]{1,9}[dh]\Z"), st.datetimes().map(str)))
def test_expires_is_a_future_time_or_refused_whatever_it_is(text: str) -> None:
    with suppress(CommandError):
        assert future_time(text, NOW) > NOW


@pytest.mark.usefixtures("reader")
def test_a_refused_expires_makes_neither_token_nor_user() -> None:
    with pytest.raises(CommandError):
        run("create_token", "new", "--create-user", "--expires", "yesterday")
    assert not User.objects.filter(username="new").exists()
    assert not AuthToken.objects.exists()


def test_a_token_for_nobody_is_refused() -> None:
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        run("create_token", "nobody")


@pytest.mark.parametrize("option", [[], ["--create-user"]])
def test_a_token_for_an_inactive_user_is_refused(reader: User, option: list[str]) -> None:
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="'reader' is inactive"):
        run("create_token", "reader", *option)
    assert not AuthToken.objects.exists()


def test_create_user_makes_one_who_may_only_view() -> None:
    out, _ = run("create_token", "new", "--create-user")
    user = User.objects.get(username="new")
    assert user.get_all_permissions() == {
        "systemtasks.view_systemtask",
        "systemtasks.view_taskrun",
    }
    assert not user.has_usable_password()
    assert not user.is_staff
    assert not user.is_superuser
    assert status_of(out.strip()) == 200


def test_create_user_leaves_a_user_as_it_is() -> None:
    user = factories.user("runner", "run", password="a password")
    run("create_token", "runner", "--create-user")
    user = User.objects.get()
    assert user.check_password("a password")
    assert user.get_all_permissions() == {"systemtasks.run_systemtask"}


def test_create_user_refuses_a_name_that_cannot_be_one() -> None:
    with pytest.raises(CommandError, match="'a b' cannot be a user's name: Enter a valid"):
        run("create_token", "a b", "--create-user")


def test_tokens_are_listed_as_a_table_without_what_would_let_anyone_in(reader: User) -> None:
    tokens = [factories.token(reader), factories.token(reader, timedelta(days=1))]
    tokens.append(factories.token(factories.user("other", is_active=False), timedelta(days=-1)))
    times = AuthToken.objects.order_by("created").values_list("created", "expiry")
    AuthToken.objects.update(created=NOW)
    for token, (_, expiry) in zip(tokens, times, strict=True):
        created = NOW + timedelta(minutes=tokens.index(token))
        AuthToken.objects.filter(token_key=token[:15]).update(created=created, expiry=expiry)
    expiries = [f"{utc_time(expiry):%Y-%m-%d %H:%M} UTC" for _, expiry in times if expiry]
    used = NOW + timedelta(minutes=9)
    factories.grant(tokens[1], read_only=True, rate=60, last_used=used)
    out, _ = run("list_tokens")
    assert out.splitlines() == [
        "KEY              USER              CREATED               EXPIRES"
        "                         LAST USED             GRANT",
        f"{tokens[0][:15]}  reader            2027-01-01 12:00 UTC  never"
        "                           never                 all its user may",
        f"{tokens[1][:15]}  reader            2027-01-01 12:01 UTC  {expiries[0]}"
        "            2027-01-01 12:09 UTC  read only, 60 a minute",
        f"{tokens[2][:15]}  other (inactive)  2027-01-01 12:02 UTC  {expiries[1]} (expired)"
        "  never                 all its user may",
    ]


def test_one_users_tokens_can_be_listed(reader: User) -> None:
    mine, other = factories.token(reader), factories.token(factories.user("other"))
    out, _ = run("list_tokens", "reader")
    assert mine[:15] in out
    assert other[:15] not in out


def test_listing_the_tokens_of_nobody_is_refused() -> None:
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        run("list_tokens", "nobody")


def test_no_tokens_are_said_on_standard_error() -> None:
    assert run("list_tokens") == ("", "There are no tokens.\n")


def test_a_revoked_token_is_refused_at_once_and_the_others_work(reader: User) -> None:
    first, second, third = (factories.token(reader) for _ in range(3))
    assert status_of(first) == 200
    out, _ = run("revoke_token", first[:15], third[:15], first[:15])
    assert out == f"Revoked {first[:15]} of reader.\nRevoked {third[:15]} of reader.\n"
    assert [status_of(token) for token in (first, second, third)] == [403, 200, 403]


def test_all_of_a_users_tokens_can_be_revoked(reader: User) -> None:
    mine, other = factories.token(reader), factories.token(factories.user("other", "view"))
    run("revoke_token", "--user", "reader")
    assert (status_of(mine), status_of(other)) == (403, 200)
    assert run("revoke_token", "--user", "reader") == ("", "reader has no tokens.\n")


@pytest.mark.parametrize("key", ["nonsense", "", "%"])
def test_an_unknown_key_revokes_nothing(reader: User, key: str) -> None:
    token = factories.token(reader)
    with pytest.raises(CommandError, match=f"There is no token '{key}'; nothing was revoked"):
        run("revoke_token", token[:15], key)
    assert status_of(token) == 200


def test_a_whole_token_is_revoked(reader: User) -> None:
    first, second = (factories.token(reader) for _ in range(2))
    assert run("revoke_token", first) == (f"Revoked {first[:15]} of reader.\n", "")
    assert [status_of(token) for token in (first, second)] == [403, 200]


def test_a_whole_token_that_is_unknown_is_not_shown(reader: User) -> None:
    token = factories.token(reader)
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    with pytest.raises(CommandError) as raised:
        run("revoke_token", other)
    assert str(raised.value) == f"There is no token '{other[:8]}…'; nothing was revoked."
    assert status_of(token) == 200


def test_revoking_needs_a_key_or_a_user() -> None:
    with pytest.raises(CommandError, match="Name a KEY from list_tokens, or a --user"):
        run("revoke_token")


# What a token may do, and how often


@pytest.mark.usefixtures("reader")
def test_create_token_says_what_the_token_may_do() -> None:
    run("create_token", "reader", "--read-only", "--rate", "60")
    grant = TokenGrant.objects.get()
    assert (grant.read_only, grant.rate) == (True, 60)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("rate", ["0", "-1", "1000001"])
def test_a_rate_that_cannot_be_one_is_refused(rate: str) -> None:
    with pytest.raises(CommandError, match="--rate must be from 1 to 1000000"):
        run("create_token", "reader", f"--rate={rate}")
    assert not AuthToken.objects.exists()


def test_a_read_only_token_runs_nothing_whatever_its_user_may() -> None:
    token = factories.token(factories.user("both", "view", "run"))
    factories.grant(token, read_only=True)
    url = f"/api/v3/events/system_tasks/{factories.system_task().uuid}/"
    client = Client(headers={"authorization": f"Bearer {token}"})
    assert client.get(url).status_code == 200
    answer = client.post(f"{url}run/")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


def test_past_its_rate_a_token_is_429_and_told_when_to_come_back(reader: User) -> None:
    token, other = factories.token(reader), factories.token(reader)
    factories.grant(token, rate=3)
    assert [status_of(token) for _ in range(4)] == [200, 200, 200, 429]
    answer = Client(headers={"authorization": f"Bearer {token}"}).get(
        "/api/v3/events/system_tasks/"
    )
    assert answer.json()["code"] == "throttled"
    assert 1 <= int(answer["Retry-After"]) <= 20
    assert status_of(other) == 200


def test_what_is_refused_counts_as_used(reader: User) -> None:
    token = factories.token(reader)
    factories.grant(token, rate=2)
    client = Client(headers={"authorization": f"Bearer {token}"})
    url = "/api/v3/events/task_runs/"
    assert [client.get(url).status_code for _ in range(3)] == [403, 403, 429]


def test_what_a_token_has_spent_it_regains(reader: User) -> None:
    token = factories.token(reader)
    grant = factories.grant(token, rate=1)
    assert [status_of(token) for _ in range(2)] == [200, 429]
    TokenGrant.objects.filter(pk=grant.pk).update(spent_until=timezone.now())
    assert [status_of(token) for _ in range(2)] == [200, 429]


def test_when_a_token_was_last_used_is_written_apart_from_the_request(reader: User) -> None:
    token, idle = factories.token(reader), factories.token(reader)
    factories.grant(idle)
    with CaptureQueriesContext(connection) as queries:
        assert status_of(token) == 200
    table = TokenGrant._meta.db_table
    assert not any(table in query["sql"] and "UPDATE" in query["sql"] for query in queries)
    usage.write()
    grant = TokenGrant.objects.get(token__token_key=token[:15])
    assert grant.last_used is not None
    assert datetime.now(UTC) - grant.last_used < timedelta(minutes=1)
    assert TokenGrant.objects.get(token__token_key=idle[:15]).last_used is None
    assert (grant.read_only, grant.rate) == (False, None)


def test_a_note_of_a_token_that_is_revoked_meanwhile_is_no_error(reader: User) -> None:
    token = factories.token(reader)
    assert status_of(token) == 200
    run("revoke_token", token[:15])
    usage.write()
    assert not TokenGrant.objects.exists()


def test_a_note_that_cannot_be_written_is_written_the_next_time(
    reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError

    assert status_of(factories.token(reader)) == 200
    with monkeypatch.context() as patch:
        patch.setattr(TokenGrant.objects, "using", fail)
        usage.write()
    assert not TokenGrant.objects.exists()
    usage.write()
    assert TokenGrant.objects.get().last_used is not None


def test_a_token_is_in_no_log_error_or_page_of_the_admin(
    reader: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    caplog.set_level("DEBUG")
    token = factories.token(reader)
    headers = {"authorization": f"Bearer {token}"}
    client = Client(headers=headers, raise_request_exception=False)
    seen = [
        client.get(f"/api/v3/{path}").content.decode() for path in ("events/system_tasks/", "x")
    ]
    seen += [client.post("/api/v3/events/system_tasks/x/run/").content.decode()]
    monkeypatch.setattr(SystemTaskViewSet, "get_queryset", fail)
    answer = client.get("/api/v3/events/system_tasks/")
    assert answer.status_code == 500
    seen += [answer.content.decode(), caplog.text]
    staff = Client()
    staff.force_login(User.objects.create_superuser("root"))
    stored = AuthToken.objects.get()
    for path in ("", f"{stored.pk}/change/", f"{stored.pk}/history/", f"{stored.pk}/delete/"):
        page = staff.get(f"/admin/knox/authtoken/{path}")
        assert page.status_code == 200
        seen.append(page.content.decode())
    assert not [text for text in seen if token[15:] in text]


def test_the_admin_shows_what_a_token_may_and_changes_it_but_not_its_identity(
    reader: User, admin_client: Client
) -> None:
    token = factories.token(reader)
    factories.grant(token, rate=7)
    stored = AuthToken.objects.get()
    url = f"/admin/knox/authtoken/{stored.pk}/change/"
    row = admin_client.get("/admin/knox/authtoken/").content.decode()
    assert "all its user may" in row
    page = admin_client.get(url).content.decode()
    assert 'name="digest"' not in page
    assert 'name="token_key"' not in page
    assert f"Token {stored.token_key} of reader" in page
    assert stored.digest not in re.sub(r'"[^"]*"', "", page)  # but in addresses
    grants = {"TOTAL": "1", "INITIAL": "1"}
    form = {
        "user": reader.pk,
        "digest": "0" * 128,
        "grant-0-token": stored.pk,
        "grant-0-read_only": "on",
        "grant-0-rate": "5",
        **{f"grant-{name}_FORMS": number for name, number in grants.items()},
    }
    answer = admin_client.post(url, form)
    assert answer.status_code == 302, answer.content.decode()
    assert AuthToken.objects.get().pk == stored.pk
    grant = TokenGrant.objects.get()
    assert (grant.read_only, grant.rate) == (True, 5)


def test_a_token_that_the_admin_makes_is_in_the_answer_alone(
    reader: User, admin_client: Client
) -> None:
    form = {
        "user": reader.pk,
        "grant-0-read_only": "on",
        "grant-TOTAL_FORMS": "1",
        "grant-INITIAL_FORMS": "0",
    }
    answer = admin_client.post("/admin/knox/authtoken/add/", form)
    assert answer.status_code == 200
    [token] = re.findall(r'id="new-token">([^<]+)<', answer.content.decode())
    stored = AuthToken.objects.get()
    assert (stored.digest, stored.user) == (hash_token(token), reader)
    assert TokenGrant.objects.get().read_only
    page = answer.content.decode()
    list_url = "http://testserver/api/v3/events/system_tasks/"
    curl = f"curl --header &#x27;Authorization: Bearer {token}&#x27; {list_url}"
    assert curl in page
    assert f'data-address="/admin/knox/authtoken/{stored.pk}/change/"' in page
    assert f"Token {stored.token_key} of reader" in page
    assert "no-store" in answer["Cache-Control"]
    assert "messages" not in answer.cookies
    kept = [cookie.value for cookie in admin_client.cookies.values()]
    kept += [str(session.get_decoded()) for session in Session.objects.all()]
    assert [text for text in kept if token in text] == []
    assert token not in admin_client.get("/admin/knox/authtoken/").content.decode()
    bearer = {"authorization": f"Bearer {token}"}
    assert Client().get("/api/v3/events/system_tasks/", headers=bearer).status_code == 200
