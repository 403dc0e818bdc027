"""Real services for every test: the embedded ones, or those that the environment names."""

from collections.abc import Iterator

import pytest
from django.conf import settings


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """pytest-django's hook before it makes the test database, and after it has dropped it."""
    settings.EMBEDDED.attach()
    yield
    settings.EMBEDDED.detach()
