"""What the tests of this folder share."""

import socket

import pytest


@pytest.fixture(scope="session")
def free_port() -> str:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
