"""Which runs are in progress in this process, and which of them need a row now."""

import time
from dataclasses import dataclass

from systemtasks.conf import conf
from systemtasks.recorder import Run
from systemtasks.records import RunRecord

CHEAP = 65_536  # bytes of messages that may well be written once every RUNNING_INTERVAL


@dataclass(slots=True)
class _Watched:
    run: Run
    said: int = -1
    """How much it had said when its row was written; below 0 where it has no row yet."""
    next_look: float = 0.0


class InProgress:
    """The runs in progress; any thread may add and remove, one asks for the records."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}

    def add(self, run: Run) -> None:
        """Watch this run."""
        self._watched[id(run)] = _Watched(run)

    def remove(self, run: Run) -> None:
        """Watch this run no longer."""
        self._watched.pop(id(run), None)

    def patience(self, most: float) -> float:
        """Seconds, `most` at the most, after which records must be asked for again."""
        watched = list(self._watched.values())
        if any(one.said < 0 for one in watched):
            return min(most, conf().BATCH_INTERVAL)
        return min(most, conf().RUNNING_INTERVAL) if watched else most

    def records(self) -> list[RunRecord]:
        """The records of the runs that have no row yet, or said more than theirs says.

        A run that has only just begun may end before the next batch, and then needs none.
        """
        now = time.monotonic()
        return [
            self._record(one, now)
            for one in list(self._watched.values())
            if now >= one.next_look
            and one.said != one.run.messages.said
            and one.run.age >= conf().BATCH_INTERVAL
            and not one.run.ended
        ]

    def _record(self, one: _Watched, now: float) -> RunRecord:
        one.said = one.run.messages.said
        record = one.run.in_progress()
        one.next_look = now + conf().RUNNING_INTERVAL * (1 + len(record.messages) // CHEAP)
        return record
