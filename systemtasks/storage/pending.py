"""Keep entries that wait for their rows, in memory and in the journal, up to a limit."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from systemtasks.conf import conf
from systemtasks.runs.journal_line import Entry
from systemtasks.runs.recorder import Run
from systemtasks.storage.beginnings import Beginnings, Slots
from systemtasks.storage.journal import Journal, Segment

BATCH_SHARE = 16
"""A batch takes no more entries once its lines take this part of PENDING_BYTES, such as 1/16.

So one that must be written again is small, whatever its entries are.
"""


@dataclass(slots=True)
class Batch:
    """Entries that are written together, and the journal's files with their lines."""

    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    """The bytes of the entries' lines."""
    segments: list[Segment] = field(default_factory=list)
    """The files, mostly one. There is none as long as the batch takes more entries."""
    droppable: int = 0
    """The number of entries that are dropped first, by their outcome."""
    dropped_size: int = 0
    """The bytes of lines in the files whose entries have been dropped."""


class Pending:
    """A queue of batches, oldest first. The caller must not use it in two threads at once."""

    def __init__(self) -> None:
        self._journal = Journal()
        self._beginnings = Beginnings()
        self._batches: deque[Batch] = deque()
        self._count = 0
        self._size = 0
        self.dropped = 0
        """The number of runs dropped because the limit was reached."""

    def __len__(self) -> int:
        return self._count

    @property
    def more_than_one_batch(self) -> bool:
        """Return True if a batch waits besides the one that is still being filled."""
        return len(self._batches) > 1

    def add(self, entry: Entry) -> None:
        """Add the entry to a batch and to the journal."""
        rules, size = conf(), len(entry.line)
        while self._count and (
            self._count >= rules.PENDING_LIMIT or self._size + size > rules.PENDING_BYTES
        ):
            self._make_room()
        last = self._batches[-1] if self._batches else None
        # A batch with closed files takes no more entries: their lines would be in no file of it.
        if (
            last is None
            or last.segments
            or len(last.entries) >= rules.BATCH_LIMIT
            or last.size > rules.PENDING_BYTES // BATCH_SHARE
        ):
            self._close_last()
            self._batches.append(last := Batch())
        self._journal.append(entry.line)
        last.entries.append(entry)
        last.size += size
        last.droppable += entry.state.outcome.dropped_first
        self._count += 1
        self._size += size

    def take(self) -> Batch | None:
        """Remove and return the oldest batch, or None. The caller must call `done` with it."""
        if not self._batches:
            return None
        if len(self._batches) == 1:
            self._close_last()
        batch = self._batches.popleft()
        self._count -= len(batch.entries)
        self._size -= batch.size
        return batch

    def done(self, batch: Batch) -> None:
        """Release the files of a batch that is committed or dropped. Any thread may call this."""
        while batch.segments:
            self._journal.release(batch.segments.pop())

    def begin(self, run: Run) -> None:
        """Keep the beginning of this run in the journal, until its end is there."""
        self._beginnings.add(run)

    def end(self, run: Run) -> None:
        """Remove the beginning of this run from the journal."""
        self._beginnings.remove(run)

    def rest(self) -> None:
        """Empty the journal of beginnings if no run is in progress."""
        self._beginnings.tidy()

    def tidy(self) -> None:
        """Delete the journal's empty files."""
        self._journal.tidy()
        self._beginnings.delete()

    def forget(self) -> None:
        """Close all files without deleting them, as a forked child must: they are its parent's."""
        self._journal.forget()
        self._beginnings.close()
        for batch in self._batches:
            for segment in batch.segments:
                segment.close()

    def discard(self) -> None:
        """Drop all entries, also those in the journal."""
        for batch in self._batches:
            for segment in batch.segments:
                segment.remove()
        self._batches.clear()
        self._count = self._size = 0
        self._journal.discard()
        self._beginnings.discard()

    def abandoned(self) -> Iterator[Segment]:
        """Lock and yield the files of dead processes. The caller must close or remove each.

        Files of ends come first, as the run of a beginning may have ended.
        """
        yield from self._journal.abandoned()
        yield from self._journal.abandoned(Slots)

    def _close_last(self) -> None:
        if self._batches:
            self._batches[-1].segments += self._journal.rotate()

    def _make_room(self) -> None:
        """Drop the oldest run of those that are dropped first, or else the oldest run."""
        batch = next((one for one in self._batches if one.droppable), self._batches[0])
        index, is_droppable = 0, batch.droppable > 0
        while is_droppable and not batch.entries[index].state.outcome.dropped_first:
            index += 1
        size = len(batch.entries.pop(index).line)
        batch.droppable -= is_droppable
        batch.size -= size
        batch.dropped_size += size
        self.dropped += 1
        self._count -= 1
        self._size -= size
        # Not for each run, since a task waits meanwhile.
        if batch.dropped_size >= batch.size or (is_droppable and not batch.droppable):
            self._remove_dropped(batch)

    def _remove_dropped(self, batch: Batch) -> None:
        """Remove the lines of dropped entries from the files of this batch."""
        if batch is self._batches[-1]:
            self._close_last()
        batch.dropped_size = 0
        if not batch.entries:
            self.done(batch)
            self._batches.remove(batch)
        elif batch.segments:
            lines = [entry.line for entry in batch.entries]
            batch.segments = self._journal.replace(batch.segments, lines)
