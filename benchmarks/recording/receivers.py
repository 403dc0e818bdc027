"""Measure how long each signal of a task takes, with the receivers of this mode.

`receivers NUMBER` prints the medians of that many tasks as JSON, in microseconds.
"""

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from celery import signals

from benchmarks.recording import flow
from systemtasks.storage.writer import writer

BATCH = 200  # tasks after which the writer may write all their rows


def main(number: str) -> None:
    flow.prepare()
    times = _time(flow.success, int(number))
    # The signals that both kinds of task send are reported for the one that succeeds.
    times |= {k: v for k, v in _time(flow.failure, int(number)).items() if k not in times}
    times |= _time(lambda _: flow.whole(BATCH), int(number) // BATCH or 1, pause_every=1)
    timed = {name: statistics.median(each) for name, each in times.items()}
    connected = {
        name: len(getattr(signals, name).receivers) for name in sorted(set(signals.__all__))
    }
    print(json.dumps({"timed": timed, "connected": connected}))


def _time(
    steps: Callable[[int], Iterator[flow.Step]], number: int, pause_every: int = BATCH
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for index in range(number):
        for name, step in steps(index):
            begin = time.perf_counter_ns()
            step()
            times[name].append((time.perf_counter_ns() - begin) / 1000)
        if index % pause_every == 0:
            writer.flush()
    writer.flush()
    return times
