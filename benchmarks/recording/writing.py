"""Measure how fast the writer writes, or how much memory its pending runs take. Print JSON.

`writing rate NUMBER` prints rows a second. `writing memory NUMBER` prints the bytes of that many
pending runs, and must be called without a database.
"""

import json
import os
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any
from unittest import mock

from benchmarks.recording import flow, modes, throughput
from benchmarks.recording.processes import TIMEOUT
from systemtasks.storage.writer import writer


def rate(number: int) -> float:
    """Return the number of runs that the writer writes each second."""
    throughput.empty()
    calls = _submissions(number)
    begin = time.monotonic()
    for arguments, keywords in calls:
        writer.submit(*arguments, **keywords)
    writer.flush(TIMEOUT)
    seconds = time.monotonic() - begin
    written = throughput.count_rows(modes.OURS)
    if written != number:
        raise RuntimeError(f"the writer has written {written} of {number} runs")
    return number / seconds


def memory(number: int) -> int:
    """Return the bytes that this many runs take while the database is away."""
    _run(1)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    _run(number)
    after, _ = tracemalloc.get_traced_memory()
    return after - before


def _submissions(number: int) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Return the entries that the receivers pass to the writer for this many tasks."""
    with mock.patch.object(writer, "submit") as submit:
        _run(number)
    return [(call.args, call.kwargs) for call in submit.call_args_list]


def _run(number: int) -> None:
    for index in range(number):
        for _, step in flow.success(index):
            step()


def main(what: str, number: str) -> None:
    flow.prepare()
    figure = {"rate": rate, "memory": memory}[what](int(number))
    print(json.dumps(figure), flush=True)
    # Without a database, entries may still wait for it. They must not delay the end.
    os._exit(0)
