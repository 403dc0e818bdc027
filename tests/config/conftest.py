"""Fixtures of the tests in this folder."""

import socket

import pytest


@pytest.fixture(scope="session")
def free_port() -> str:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
