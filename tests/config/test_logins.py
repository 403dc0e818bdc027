"""Failed logins are logged, and make the address and the account wait."""

import logging
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

LOGIN = "/admin/login/"
PASSWORD = "night-watch-3"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _accounts() -> None:
    for name in ("ops", "other"):
        User.objects.create_superuser(name, password=PASSWORD)


def log_in(username: str, password: str, address: str = "192.0.2.1") -> int:
    form = {"username": username, "password": password, "next": "/admin/"}
    return Client().post(LOGIN, form, REMOTE_ADDR=address).status_code


def fail(times: int, username: str = "ops", address: str = "192.0.2.1") -> list[int]:
    return [log_in(username, f"wrong {number}", address) for number in range(times)]


def test_account_waits_after_ten_failures_wherever_they_come_from() -> None:
    tried = [log_in("ops", "wrong", f"192.0.2.{number}") for number in range(1, 11)]
    assert tried == [200] * 9 + [429]
    assert log_in("ops", PASSWORD, "198.51.100.7") == 429
    assert log_in("other", PASSWORD, "198.51.100.7") == 302


def test_address_waits_after_ten_failures_whatever_the_account() -> None:
    tried = [log_in(f"guess{number}", "wrong") for number in range(10)]
    assert tried == [200] * 9 + [429]
    assert log_in("ops", PASSWORD) == 429
    assert log_in("ops", PASSWORD, "198.51.100.7") == 302


def test_network_in_ipv6_is_one_address() -> None:
    addresses = [f"2001:db8:1:2::{number:x}" for number in range(10)]
    for number, address in enumerate(addresses):
        log_in(f"guess{number}", "wrong", address)
    assert log_in("ops", PASSWORD, "2001:db8:1:2:ffff::1") == 429
    assert log_in("ops", PASSWORD, "2001:db8:1:3::1") == 302


def test_while_an_account_waits_nothing_is_counted_or_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail(10)
    [before] = AccessAttempt.objects.values("failures_since_start", "attempt_time")

    def check(*_: object, **__: object) -> None:
        raise AssertionError("the password was checked")

    monkeypatch.setattr("django.contrib.auth.models.User.check_password", check)
    assert fail(5) == [429] * 5
    assert fail(5, username="stranger") == [429] * 5
    [after] = AccessAttempt.objects.values("failures_since_start", "attempt_time")
    assert after == before


def test_wait_ends_by_itself() -> None:
    fail(10)
    passed = settings.AXES_COOLOFF_TIME + timedelta(seconds=1)
    AccessAttempt.objects.update(attempt_time=timezone.now() - passed)
    assert log_in("ops", PASSWORD) == 302
    assert AccessAttempt.objects.count() == 0


def test_success_ends_the_count_of_an_account() -> None:
    fail(9)
    assert log_in("ops", PASSWORD) == 302
    assert fail(9) == [200] * 9


def test_failure_is_logged_with_account_and_address_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="axes"):
        log_in("ops\nINFO forged: all is well", "hunter22", "192.0.2.99")
    assert "192.0.2.99" in caplog.text
    assert "hunter22" not in caplog.text
    messages = [
        record.getMessage() for record in caplog.records if "192.0.2.99" in record.getMessage()
    ]
    assert messages
    assert [message for message in messages if "\n" in message] == []


def test_session_that_exists_goes_on_while_its_account_waits() -> None:
    client = Client()
    client.force_login(User.objects.get(username="ops"), "events.backends.OneQueryModelBackend")
    fail(10)
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("page", ["", "https://evil.example/", "//evil.example", "javascript:x()"])
def test_login_without_a_page_of_this_service_to_return_to_leads_to_the_admin(page: str) -> None:
    form = {"username": "ops", "password": PASSWORD, **({"next": page} if page else {})}
    answer = Client().post(LOGIN, form)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
