"""Provide clients that send only a token, like an API client."""

from pathlib import Path
from typing import Literal

import pytest
from django.test import Client

from tests import factories


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Literal[True] | None:
    """Import Schemathesis only if slow tests may run: the import takes seconds."""
    fast = config.getoption("markexpr") == "not slow"
    return True if fast and collection_path.name == "test_schemathesis.py" else None


def client_of(username: str, *permissions: str) -> Client:
    bearer = factories.token(factories.user(username, *permissions))
    return Client(headers={"authorization": f"Bearer {bearer}"}, raise_request_exception=False)


@pytest.fixture
def reader(db: None) -> Client:
    """Return a client whose user may view."""
    return client_of("reader", "view")


@pytest.fixture
def runner(db: None) -> Client:
    """Return a client whose user may run tasks, and nothing else."""
    return client_of("runner", "run")
