"""The table that a benchmark prints."""

import subprocess

from tests.processes import ROOT


def figures(name: str) -> dict[str, str]:
    """Return the first figure of each row of the benchmark's table, by the row's name.

    Run it on a small scale. Assert that each row has as many cells as the header.
    """
    done = subprocess.run(
        ["benchmarks/run", name, "--quick"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
    ]
    assert all(len(cells) == len(header) for cells in lines)
    return {cells[0]: cells[1] for cells in lines}
