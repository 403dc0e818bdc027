"""Measure the cost of recording, compared with other recorders, and print one table."""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from benchmarks.recording import flow, modes, processes, throughput, visible
from benchmarks.recording.modes import COMPARED, DATABASE_AWAY, NOTHING, OURS
from benchmarks.recording.table import HEADER, Row
from benchmarks.recording.throughput import Throughput
from benchmarks.table import as_text, spread


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    tasks: int
    """The number of tasks that a worker runs in one round, after the warm-up."""
    warm_up: int
    steps: int
    """The number of tasks whose signals are timed in one round."""
    pending: int
    """The number of runs that are passed to the writer at once."""
    visible: int
    """The number of tasks, sent at VISIBLE_RATE, for which the delay of the row is measured."""


FULL = Scale(rounds=7, tasks=5000, warm_up=500, steps=5000, pending=10_000, visible=1000)
QUICK = Scale(rounds=1, tasks=100, warm_up=20, steps=50, pending=200, visible=20)
VISIBLE_RATE = 50  # tasks a second
PER = 10_000  # pending runs, whose memory is printed


def main(*words: str) -> None:
    scale = _scale(words)
    try:
        _migrate()
        sections = (_throughput(scale), _receivers(scale), _writing(scale), _visible(scale))
        print(as_text(HEADER, [row.cells() for section in sections for row in section]))
    finally:
        settings.EMBEDDED.detach()


def _scale(words: tuple[str, ...]) -> Scale:
    parser = argparse.ArgumentParser(prog="benchmarks/run recording", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test; its figures mean nothing"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--tasks", type=int, help="tasks a worker runs in one round")
    given = parser.parse_args(words)
    scale = QUICK if given.quick else FULL
    chosen = {name: value for name in ("rounds", "tasks") if (value := getattr(given, name))}
    return Scale(**{**vars(scale), **chosen})


def _migrate() -> None:
    """Create the tables of all modes."""
    settings.EMBEDDED.attach()
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=processes.ROOT,
        env=processes.environment(modes.DJANGO_CELERY_RESULTS, Path()),
        check=True,
    )


def _throughput(scale: Scale) -> Iterator[Row]:
    """Yield the throughput of each mode, divided by that without a recorder in the same round."""
    measured: dict[str, list[Throughput]] = {mode.name: [] for mode in COMPARED}
    for number in range(scale.rounds):
        for mode in COMPARED:
            _say(f"round {number + 1} of {scale.rounds}: {mode.name}")
            measured[mode.name].append(throughput.measure(mode, scale.tasks, scale.warm_up))
    alone = measured[NOTHING.name]
    for name, rounds in measured.items():
        ratios = [each.rate / base.rate for each, base in zip(rounds, alone, strict=True)]
        yield Row(
            f"throughput: {name}",
            *spread(ratios, "of nothing", digits=2),
            rate=f"{statistics.median(each.rate for each in rounds):.0f}",
            cpu={who: _median(each.cpu[who] for each in rounds) for who in rounds[0].cpu},
            behind=_median(each.behind for each in rounds if each.behind is not None),
        )


def _receivers(scale: Scale) -> Iterator[Row]:
    """Yield how much longer each signal of a task takes because of the recording."""
    added: dict[str, list[float]] = {}
    for number in range(scale.rounds):
        _say(f"round {number + 1} of {scale.rounds}: receivers")
        without, ours = (
            processes.run_json("receivers", str(scale.steps), mode=mode) for mode in (NOTHING, OURS)
        )
        for name, time in ours["timed"].items():
            added.setdefault(name, []).append(time - without["timed"][name])
    connected = {
        name for name, count in ours["connected"].items() if count > without["connected"][name]
    }
    for name, times in added.items():
        if name in connected or name == flow.LINE:
            yield Row(f"added by {name}", *spread(times, "µs", digits=1))
    yield Row("added to a task in its own thread", *spread(added[flow.WHOLE], "µs", digits=1))
    _say(f"received, but not timed: {', '.join(sorted(connected - added.keys()))}")


def _writing(scale: Scale) -> Iterator[Row]:
    """Yield the writer's rate, and the memory of its pending runs."""
    _say("writer")
    rates = [
        processes.run_json("writing", "rate", str(scale.pending), mode=OURS)
        for _ in range(scale.rounds)
    ]
    yield Row("runs the writer writes a second", *spread(rates, "/s", digits=0))
    taken = [
        processes.run_json(
            *("writing", "memory", str(scale.pending)),
            mode=DATABASE_AWAY,
            JOURNAL_DIR=str(settings.EMBEDDED.data / "journal-without-database"),
        )
        for _ in range(scale.rounds)
    ]
    megabytes = [each / scale.pending * PER / 1e6 for each in taken]
    yield Row(f"memory of {PER:,} pending runs", *spread(megabytes, "MB", digits=1))


def _visible(scale: Scale) -> Iterator[Row]:
    """Yield the time from a task's end to its row."""
    _say("visibility")
    delays = sorted(visible.measure(scale.visible, VISIBLE_RATE))
    for percent in (50, 99):
        value = delays[min(len(delays) * percent // 100, len(delays) - 1)] * 1000
        yield Row(f"from a task's end to its row, p{percent}", f"{value:.0f} ms")


def _median(values: Any) -> str:  # noqa: ANN401
    known = list(values)
    return f"{statistics.median(known):.0f}" if known else ""


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
