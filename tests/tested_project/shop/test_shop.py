"""The project's tests for pytest. None is about records."""

from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from celery.contrib.testing import tasks as _  # noqa: F401 - a worker for tests is pinged
from django.contrib.auth.models import Group
from pytest_django.live_server_helper import LiveServer

from .tasks import charge
from .tests import *  # noqa: F403 - its Django test cases

pytest_plugins = ["celery.contrib.pytest"]

charge.apply((1,))


@pytest.fixture(scope="session")
def celery_config() -> dict[str, object]:
    return {
        "broker_url": "memory://",
        "result_backend": "cache+memory://",
        "broker_transport_options": {"polling_interval": 0.01},
    }


@pytest.fixture(scope="session", autouse=True)
def _a_task_behind_the_last_test() -> Iterator[None]:
    yield
    charge.apply((1,))
    charge.delay(1)


def test_task_without_a_mark() -> None:
    assert charge.apply((1,)).get() == 2


def test_sending_without_a_mark() -> None:
    charge.delay(1)


@pytest.mark.django_db
def test_task_with_a_mark() -> None:
    Group.objects.create(name="customers")
    assert charge.apply((1,)).get() == 2


def test_task_in_a_transaction(db: None) -> None:
    charge.delay(1)
    assert charge.apply((1,)).get() == 2


def test_task_in_transactions(transactional_db: None) -> None:
    Group.objects.create(name="customers")
    charge.delay(1)
    assert charge.apply((1,)).get() == 2


def test_worker(celery_app: object, celery_worker: object, transactional_db: None) -> None:
    assert charge.delay(2).get(timeout=30) == 4


def test_worker_without_a_mark(celery_session_worker: object) -> None:
    assert charge.delay(2).get(timeout=30) == 4


def test_live_server(live_server: LiveServer) -> None:
    with urlopen(f"{live_server.url}/order/") as answer:
        assert answer.read() == b"ordered"
