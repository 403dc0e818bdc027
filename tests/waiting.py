"""Wait for a condition that another process or thread makes true."""

import time
from collections.abc import Callable


def eventually(met: Callable[[], bool], seconds: float = 30) -> bool:
    """Return True if the condition becomes true within that time."""
    deadline = time.monotonic() + seconds
    while not met():  # asked once only: what is true now may be false a moment later
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
