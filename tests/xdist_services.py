"""Give each process of pytest-xdist services of its own, in a folder of its own in DATA_DIR.

Without pytest-xdist, nothing changes.

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

LONGEST = [
    "tests/test_shop.py",
    "tests/browser/test_accessibility.py",
    "tests/systemtasks/test_admin.py",
    "tests/config/test_migrate.py",
    "tests/test_fuzz.py",
    "tests/test_package.py",
]
"""The files whose slow tests take longest, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left with one when the others end."""

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        is_long = file in LONGEST and item.get_closest_marker("slow")
        return LONGEST.index(file) if is_long else len(LONGEST)

    if process:
        items.sort(key=place)


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
