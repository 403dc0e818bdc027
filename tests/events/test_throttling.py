"""Default rates of tokens, and of the wrong tokens of an address."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from events import rates
from events.rates import Rates
from tests import factories

LIST = "/api/v3/events/system_tasks/"


class Clock:
    """A clock that moves when the test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates, "time", made)
    return made


@pytest.fixture(autouse=True)
def _low_rates(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"TOKEN_RATE": 6, "WRONG_TOKEN_RATE": 3}


def ask(client: Client, token: str, address: str = "192.0.2.1") -> int:
    answer = client.get(LIST, headers={"authorization": f"Bearer {token}"}, REMOTE_ADDR=address)
    assert (answer.status_code == 429) == ("Retry-After" in answer.headers)
    return answer.status_code


def test_rate_allows_so_many_at_once_and_one_more_as_time_goes_on(clock: Clock) -> None:
    counted = Rates()
    assert [counted.spend("a", 6) for _ in range(6)] == [0.0] * 6
    assert counted.spend("a", 6) == pytest.approx(10)
    assert counted.wait("a", 6) == pytest.approx(10)
    assert counted.spend("b", 6) == 0.0
    clock.now += 10
    assert counted.wait("a", 6) == 0.0
    assert counted.spend("a", 6) == 0.0
    assert counted.spend("a", 6) == pytest.approx(10)


def test_rates_of_many_keys_take_bounded_memory(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "MOST_KEYS", 10)
    counted = Rates()
    for number in range(100):
        counted.spend(str(number), 1)
        assert len(counted._spent_until) <= 10


@pytest.mark.django_db
def test_token_without_a_rate_has_the_default_one(client: Client, clock: Clock) -> None:
    user = factories.user("reader", "view")
    one, another = factories.token(user), factories.token(user)
    assert [ask(client, one) for _ in range(7)] == [200] * 6 + [429]
    assert ask(client, another) == 200
    clock.now += 10
    assert [ask(client, one) for _ in range(2)] == [200, 429]


@pytest.mark.django_db
def test_token_with_a_rate_has_no_other(client: Client, clock: Clock) -> None:
    token = factories.token(factories.user("reader", "view"))
    factories.grant(token, rate=1000)
    assert [ask(client, token) for _ in range(20)] == [200] * 20


@pytest.mark.django_db
def test_default_rate_may_be_turned_off(client: Client, clock: Clock, settings: Settings) -> None:
    settings.SYSTEMTASKS = {"TOKEN_RATE": 0, "WRONG_TOKEN_RATE": 0}
    token = factories.token(factories.user("reader", "view"))
    assert [ask(client, token) for _ in range(20)] == [200] * 20
    assert [ask(client, "wrong" * 10) for _ in range(20)] == [403] * 20


@pytest.mark.django_db
def test_address_with_too_many_wrong_tokens_waits_without_a_query(
    client: Client, clock: Clock
) -> None:
    assert [ask(client, f"wrong{n:040}") for n in range(3)] == [403] * 3
    with CaptureQueriesContext(connection) as queries:
        assert [ask(client, f"other{n:040}") for n in range(3)] == [429] * 3
    assert queries.captured_queries == []
    assert ask(client, "wrong" * 10, "192.0.2.2") == 403
    clock.now += 20
    assert [ask(client, f"wrong{n:040}") for n in range(2)] == [403, 429]


@pytest.mark.django_db
def test_token_that_was_right_before_is_right_beside_wrong_ones(
    client: Client, clock: Clock, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"TOKEN_RATE": 0, "WRONG_TOKEN_RATE": 3}
    token = factories.token(factories.user("reader", "view"))
    assert ask(client, token) == 200
    assert [ask(client, f"wrong{n:040}") for n in range(4)] == [403, 403, 403, 429]
    assert ask(client, token) == 200


@pytest.mark.django_db
def test_header_that_is_no_token_costs_no_query_and_is_not_counted(
    client: Client, clock: Clock
) -> None:
    assert [ask(client, "not a token") for _ in range(10)] == [403] * 10


@pytest.mark.django_db
def test_one_client_in_ipv6_has_one_rate_for_its_network(client: Client, clock: Clock) -> None:
    addresses = [f"2001:db8:1:2::{number:x}" for number in range(4)]
    tried = [ask(client, f"wrong{n:040}", address) for n, address in enumerate(addresses)]
    assert tried == [403, 403, 403, 429]
    assert ask(client, "wrong" * 10, "2001:db8:1:3::1") == 403
