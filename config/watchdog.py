"""Ends what `make up` started, where `make up` was killed before it could.

`python -m config.watchdog` reads the ids of processes, each the leader of a group, until whoever
writes them ends, in whatever way. Then it asks the leaders to end, and at last kills their groups.

The kernel would ask them itself (PR_SET_PDEATHSIG), but once for each thread of the dead process
that outlives another, and a second SIGTERM while it handles the first makes Granian hang for good.
"""

import os
import signal
import sys
import time
from contextlib import suppress

WARM_TIMEOUT = 10.0  # seconds that a running task gets to end
POLL_INTERVAL = 0.1


def main() -> None:
    leaders = [int(line) for line in sys.stdin]
    for leader in leaders:
        with suppress(ProcessLookupError):
            os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + WARM_TIMEOUT
    while any(map(_is_there, leaders)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    for leader in leaders:
        kill_group(leader)


def kill_group(leader: int) -> None:
    """Kill this process with all that it started, where anything of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _is_there(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
