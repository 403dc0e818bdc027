"""Waiting for a condition, where another process or thread makes it true."""

import time
from collections.abc import Callable


def eventually(met: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether this comes true within that time."""
    deadline = time.monotonic() + seconds
    while not met() and time.monotonic() < deadline:
        time.sleep(0.02)
    return met()
