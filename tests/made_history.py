"""The made history in the test database, and the service over it, for all tests of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core.management import call_command
from pytest_django.plugin import DjangoDbBlocker

from systemtasks.demo_history.making import History
from systemtasks.demo_history.writing import write
from systemtasks.storage import partitions
from tests.web import Web

PASSWORD = "night-watch-3"
LEASE = {"LEASE_SECONDS": "3600"}
"""Nobody renews the leases of the history's workers, so that all would soon count as silent."""


@contextmanager
def written(blocker: DjangoDbBlocker) -> Iterator[History]:
    """Write the history, and a superuser "ops". At the end, empty the database for other tests."""
    with blocker.unblock():
        history = History(datetime.now(UTC))
        try:
            write(history)
            # Hashed as the service does, in its own process, and not as this one.
            hashed = PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=1)
            User.objects.create(username="ops", password=hashed, is_staff=True, is_superuser=True)
            yield history
        finally:
            call_command("flush", verbosity=0, interactive=False)
            for day in partitions.existing():
                if day < history.now.date():
                    partitions.drop(day)


@contextmanager
def served(blocker: DjangoDbBlocker, log: Path) -> Iterator[tuple[History, Web]]:
    """Write the history, and start the service over it."""
    with written(blocker) as history, Web(log, **LEASE) as web:
        yield history, web
