"""The benchmark of large tables runs and prints every figure. The values are not tested."""

import re
import subprocess

import pytest

from benchmarks.scale.command import PARTS
from tests.processes import ROOT

TITLES = {
    "Bytes a run",
    "Writing",
    "A day dropped while 300 runs a second are written",
    "API, runs",
    "API, summary",
    "API, tasks",
    "admin, runs",
    "admin, tasks",
    "admin, pages",
    "The slowest",
}
ONLY = ("state=failure", "30 days", "one task", "worker", "status=error", "home")

pytestmark = pytest.mark.slow


def test_each_part_has_a_table() -> None:
    options = ["--count", "12000", "--tasks", "100", "--only", *ONLY, "--parts", *PARTS]
    options.append("--no-statistics")  # which take minutes
    done = subprocess.run(
        ["benchmarks/run", "scale", *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "not asked" not in done.stderr, "benchmarks/scale/questions.py lacks a filter"
    tables = dict(re.findall(r"^## (.+)\n\n((?:\|.*\n)+)", done.stdout, re.MULTILINE))
    assert tables.keys() == TITLES
    for table in tables.values():
        header, rule, *lines = table.splitlines()
        assert lines
        assert {line.count(" | ") for line in (header, rule, *lines)} == {header.count(" | ")}
    assert not re.search(r"status \d", done.stdout), "an answer is an error"
