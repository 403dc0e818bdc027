"""The benchmark of the API runs and prints every figure. The values are not tested."""

import shutil

import pytest

from tests.benchmarks.tables import figures

STACKS = ("service", "conventional, connections kept", "conventional", "limit")
ROWS = {
    *(f"{what} of 100: {stack}" for what in ("one task", "20 tasks") for stack in STACKS),
    "one task of 100: bare view set",
    *(f"{what} of 100, 304: service" for what in ("one task", "20 tasks")),
    *(f"20 runs, page {page}: service" for page in (1, 2, 3)),
}

pytestmark = pytest.mark.slow


def test_table_has_every_figure() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed (apt-get install wrk)")
    found = figures("serving")
    assert found.keys() == ROWS
    assert all(found.values())
