"""The stage that all chaos tests share, and the scene of each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stage import Scene, Stage

TASKS = int(os.environ.get("CHAOS_TASKS", "1100"))
"""The number of tasks that the tests of this folder run in total."""


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.fixture
def scene(stage: Stage, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    stage.clear()
    tests = [item for item in request.session.items if item.path == request.path]
    yield Scene(stage, tmp_path, TASKS // len(tests))
    stage.postgres.restore()
    stage.broker.restore()
