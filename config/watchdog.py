"""End the processes of `make up`, even if `make up` itself was killed.

`python -m config.watchdog` reads process ids, each of the leader of a process group, from standard
input. When the input ends, because the process that writes it has ended, it sends the leaders a
SIGTERM. It kills the groups that are left after WARM_TIMEOUT.

The kernel could send that signal itself (PR_SET_PDEATHSIG). But it may send it several times, once
for each thread that outlives another, and Granian's own handlers may hang after the second one.
"""

import os
import signal
import sys
import time
from contextlib import suppress

WARM_TIMEOUT = 10.0  # seconds in which a running task may still end
POLL_INTERVAL = 0.1


def main() -> None:
    leaders = [int(line) for line in sys.stdin]
    for leader in leaders:
        with suppress(ProcessLookupError):
            os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + WARM_TIMEOUT
    while any(map(_group_exists, leaders)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    for leader in leaders:
        kill_group(leader)


def kill_group(leader: int) -> None:
    """Kill all processes of the group that this process leads, if there are any left."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
