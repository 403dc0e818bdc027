"""The benchmark of the API runs, and tells every figure; which, is not for a test to say."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("service", "conventional, connections kept", "conventional", "limit")
ROWS = {
    *(f"{what} of 100: {stack}" for what in ("one task", "20 tasks") for stack in STACKS),
    *(f"{what} of 100, 304: service" for what in ("one task", "20 tasks")),
    *(f"20 runs, page {page}: service" for page in (1, 2, 3)),
}

pytestmark = pytest.mark.slow


def test_table_has_every_figure() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed (apt-get install wrk)")
    done = subprocess.run(
        ["benchmarks/run", "serving", "--quick"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
    ]
    figures = {cells[0]: cells[1] for cells in lines}
    assert figures.keys() == ROWS
    assert all(figures.values())
    assert all(len(cells) == len(header) for cells in lines)
