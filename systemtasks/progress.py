"""Which runs are in progress in this process, and which of them need a row now."""

import time
from dataclasses import dataclass

from systemtasks.conf import conf
from systemtasks.entries import Entry
from systemtasks.recorder import Run

CHEAP = 65_536  # bytes of an entry that may well be written once every RUNNING_INTERVAL


@dataclass(slots=True)
class _Row:
    said: int
    """How much its run had said when it was written."""
    next_look: float


class InProgress:
    """The runs in progress; any thread may add and remove, one asks for the entries."""

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self._rows: dict[Run, _Row] = {}

    def add(self, run: Run) -> None:
        """Watch this run."""
        self._runs.add(run)

    def remove(self, run: Run) -> None:
        """Watch this run no longer."""
        self._runs.discard(run)

    def patience(self, most: float) -> float:
        """Seconds, `most` at the most, after which entries must be asked for again."""
        runs = list(self._runs)
        if any(run not in self._rows for run in runs):
            return min(most, conf().BATCH_INTERVAL)
        return min(most, conf().RUNNING_INTERVAL) if runs else most

    def entries(self) -> list[Entry]:
        """The entries of the runs that have no row yet, or said more than theirs says.

        A run that has only just begun may end before the next batch, and then needs none.
        """
        now, runs = time.monotonic(), set(self._runs)
        self._rows = {run: row for run, row in self._rows.items() if run in runs}
        return [
            self._entry(run, now)
            for run in runs
            if run.age >= conf().BATCH_INTERVAL and not run.ended and self._is_due(run, now)
        ]

    def _is_due(self, run: Run, now: float) -> bool:
        row = self._rows.get(run)
        return row is None or (now >= row.next_look and row.said != run.messages.said)

    def _entry(self, run: Run, now: float) -> Entry:
        said = run.messages.said
        entry = run.in_progress()
        pause = conf().RUNNING_INTERVAL * (1 + len(entry.line) // CHEAP)
        self._rows[run] = _Row(said, now + pause)
        return entry
