"""The project's tests for Django's own runner. None is about records."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from celery.contrib.testing import tasks as _  # noqa: F401 - a worker for tests is pinged
from celery.contrib.testing.worker import start_worker
from django.contrib.auth.models import Group
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase

from .celery import app
from .tasks import charge

charge.apply((1,))
charge.delay(1)


@contextmanager
def a_worker() -> Iterator[None]:
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        yield


class WithoutDatabaseTests(SimpleTestCase):
    def test_task(self) -> None:
        assert charge.apply((1,)).get() == 2

    def test_sending(self) -> None:
        charge.delay(1)


class InOneTransactionTests(TestCase):
    def test_task(self) -> None:
        Group.objects.create(name="customers")
        assert charge.apply((1,)).get() == 2

    def test_sending(self) -> None:
        charge.delay(1)


class TransactionalTests(TransactionTestCase):
    def test_task(self) -> None:
        Group.objects.create(name="customers")
        assert charge.apply((1,)).get() == 2

    def test_worker(self) -> None:
        with a_worker():
            assert charge.delay(2).get(timeout=30) == 4


class LiveServerTests(LiveServerTestCase):
    def test_sending(self) -> None:
        with urlopen(f"{self.live_server_url}/order/") as answer:
            assert answer.read() == b"ordered"
