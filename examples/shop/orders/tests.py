"""The shop's own tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from accounts.models import User
from django.core.cache import cache
from django.test import Client
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler
from shop.celery import app

from orders.models import Order
from orders.tasks import DeclinedError, charge, confirm, ship


@pytest.fixture
def client(db: None) -> Client:
    cache.clear()
    client = Client()
    client.force_login(User.objects.create_user("ann@example.com"))
    return client


@pytest.fixture
def order(db: None) -> Order:
    return Order.objects.create(customer=User.objects.create_user("bob@example.com"), article="tea")


@pytest.fixture
def eager() -> Iterator[None]:
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def test_order_is_charged_when_it_is_committed(
    client: Client, eager: None, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post("/api/orders/", {"article": "tea", "amount": 2})
    assert answer.status_code == 201
    assert answer.json()["amount"] == 2
    assert Order.objects.get().is_paid


def test_stranger_is_refused_in_the_words_of_the_shop(db: None) -> None:
    answer = Client().get("/api/orders/")
    assert answer.status_code == 403
    assert "shop_error" in answer.json()


def test_unknown_version_is_not_acceptable(client: Client) -> None:
    assert client.get("/api/orders/", headers={"accept": "application/json; version=2"}).json()
    refused = client.get("/api/orders/", headers={"accept": "application/json; version=3"})
    assert refused.status_code == 406


def test_sixth_request_in_a_minute_is_throttled(client: Client) -> None:
    answers = [client.get("/api/orders/").status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]


def test_schema_has_the_shops_paths(db: None) -> None:
    schema = Client().get("/api/schema/?format=json").json()
    assert list(schema["paths"]) == ["/api/orders/", "/api/orders/{id}/"]
    assert schema["info"]["title"] == "Shop"


def test_office_shows_the_orders(order: Order) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("boss@example.com", "x"))
    assert b"1 of tea" in client.get("/office/orders/order/").content


def test_large_order_is_declined(order: Order) -> None:
    Order.objects.update(amount=101)
    with pytest.raises(DeclinedError):
        charge.apply((order.pk,), throw=True)


def test_order_is_shipped_at_the_second_call(order: Order) -> None:
    assert ship.apply((order.pk,)).get() == f"shipped {order.pk}"


def test_order_is_confirmed_once(
    order: Order, caplog: pytest.LogCaptureFixture, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        confirm.apply((order.pk,))
    mine = [record for record in caplog.records if record.name == "orders.tasks"]
    assert [record.getMessage() for record in mine] == [f"No mail server for order {order.pk}"]


@pytest.mark.django_db(transaction=True)  # beat closes the connection
def test_beat_takes_its_schedule_from_the_database() -> None:
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.HOURS)
    PeriodicTask.objects.create(name="clean up", task="orders.tasks.clean_up", interval=every)
    assert "clean up" in DatabaseScheduler(app=app).schedule
