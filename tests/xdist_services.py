"""Give each process of pytest-xdist services of its own, in a folder of its own in DATA_DIR.

It is a plugin that `tests/run` names, since Django reads its settings, which name the services,
before pytest reads conftest.py.
"""

import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from config.embedded import lock

if process := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["DATA_DIR"] = str(Path(os.environ["DATA_DIR"]) / process)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape what cannot be sent to the main process: a log may have half a surrogate pair."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value


def pytest_unconfigure() -> None:
    """Wait until all services have stopped. After Ctrl-C, a process may be killed before them."""
    for server in Path(os.environ["DATA_DIR"]).glob("gw*/server.lock"):
        os.close(lock(server, fcntl.LOCK_SH))
