"""Give each process of pytest-xdist services of its own, in a folder of its own in DATA_DIR.

It is a plugin that `tests/run` names, since Django reads its settings, which name the services,
before pytest reads conftest.py.
"""

import fcntl
import os
from pathlib import Path

from config.embedded import lock

if process := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["DATA_DIR"] = str(Path(os.environ["DATA_DIR"]) / process)


def pytest_unconfigure() -> None:
    """Wait until all services have stopped. After Ctrl-C, a process may be killed before them."""
    for server in Path(os.environ["DATA_DIR"]).glob("gw*/server.lock"):
        os.close(lock(server, fcntl.LOCK_SH))
