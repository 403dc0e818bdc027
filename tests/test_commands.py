"""Commands of a project that send tasks."""

import time
from pathlib import Path

import pytest

from tests.projects import Project, broker, database

pytestmark = pytest.mark.slow
SEND = "from tests.project import celery, tasks; assert celery.app; tasks.greet.delay('World')"


def seconds(project: Project, code: str) -> float:
    began = time.monotonic()
    project.run("shell", "--no-imports", "-c", code)
    return time.monotonic() - began


def test_command_that_sends_a_task_while_tables_are_missing_ends_as_soon(tmp_path: Path) -> None:
    with database() as url:
        project = Project(tmp_path, url, broker())
        seconds(project, "pass")  # compiles what it imports
        # FLUSH_TIMEOUT is 5. Beside other processes, one of two commands may be slow by chance.
        assert any(seconds(project, SEND) < seconds(project, "pass") + 3 for _ in range(3))
