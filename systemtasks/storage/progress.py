"""Keep the runs in progress in this process, and find those that need a row now."""

import time
from dataclasses import dataclass

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.journal_line import Entry
from systemtasks.runs.recorder import Run

logger = own_logger(__name__)

CHEAP = 65_536  # bytes of an entry that is cheap enough to write every RUNNING_INTERVAL


@dataclass(slots=True)
class _Row:
    added: int
    """The number of messages of the run when the row was written."""
    next_look: float


class InProgress:
    """The runs in progress. Any thread may add and remove runs; one thread reads the entries."""

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self._rows: dict[Run, _Row] = {}

    def add(self, run: Run) -> None:
        """Watch this run."""
        self._runs.add(run)

    def remove(self, run: Run) -> None:
        """Stop watching this run."""
        self._runs.discard(run)

    def patience(self, most: float) -> float:
        """Return the seconds, at most `most`, after which to call `entries` again."""
        runs = list(self._runs)
        if any(run not in self._rows for run in runs):
            return min(most, conf().BATCH_INTERVAL)
        return min(most, conf().RUNNING_INTERVAL) if runs else most

    def entries(self) -> list[Entry]:
        """Return entries of the runs that have no row yet, and of those whose row lacks messages.

        A run younger than BATCH_INTERVAL is left out: it may end before it needs such a row.
        """
        now, runs = time.monotonic(), set(self._runs)
        self._rows = {run: row for run, row in self._rows.items() if run in runs}
        due = [
            run
            for run in runs
            if run.age >= conf().BATCH_INTERVAL and not run.ended and self._is_due(run, now)
        ]
        return [entry for run in due if (entry := self._entry(run, now))]

    def _is_due(self, run: Run, now: float) -> bool:
        row = self._rows.get(run)
        return row is None or (now >= row.next_look and row.added != run.messages.added)

    def _entry(self, run: Run, now: float) -> Entry | None:
        self._rows[run] = row = _Row(run.messages.added, now)
        try:
            entry = run.in_progress()
        except Exception:
            # One failure must not keep the other runs from their rows.
            logger.exception("A run in progress is not recorded as such")
            return None
        row.next_look += conf().RUNNING_INTERVAL * (1 + len(entry.line) // CHEAP)
        return entry
