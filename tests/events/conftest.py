"""A client that asks as an API client does, with nothing but a token."""

from pathlib import Path
from typing import Literal

import pytest
from django.test import Client

from tests import factories


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Literal[True] | None:
    """Import Schemathesis, which takes seconds, only where its tests, all of them slow, may run."""
    fast = config.getoption("markexpr") == "not slow"
    return True if fast and collection_path.name == "test_schemathesis.py" else None


def client_of(username: str, *permissions: str) -> Client:
    bearer = factories.token(factories.user(username, *permissions))
    return Client(headers={"authorization": f"Bearer {bearer}"}, raise_request_exception=False)


@pytest.fixture
def reader(db: None) -> Client:
    """Somebody who may view."""
    return client_of("reader", "view")


@pytest.fixture
def runner(db: None) -> Client:
    """Somebody who may run, and nothing else."""
    return client_of("runner", "run")
