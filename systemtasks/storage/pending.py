"""Keep entries that wait for their rows, in memory and in the journal, up to a limit."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from systemtasks.conf import conf
from systemtasks.runs.journal_line import Entry
from systemtasks.storage.journal import Journal, Segment


@dataclass(slots=True)
class Batch:
    """Entries that are written together, and the journal's file with their lines."""

    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    segment: Segment | None = None


class Pending:
    """A queue of batches, oldest first. The caller must not use it in two threads at once."""

    def __init__(self) -> None:
        self._journal = Journal()
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
        # A batch with a closed file takes no more entries: it can refer to one file only.
        if last is None or last.segment or len(last.entries) >= rules.BATCH_LIMIT:
            self._close_last()
            self._batches.append(last := Batch())
        self._journal.append(entry.line)
        last.entries.append(entry)
        last.size += size
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
        """Release the file of a batch that is committed or dropped. Any thread may call this."""
        if batch.segment is not None:
            self._journal.release(batch.segment)
            batch.segment = None

    def tidy(self) -> None:
        """Delete the journal's empty files."""
        self._journal.tidy()

    def forget(self) -> None:
        """Close all files without deleting them, as a forked child must: they are its parent's."""
        self._journal.forget()
        for batch in self._batches:
            if batch.segment is not None:
                batch.segment.close()

    def discard(self) -> None:
        """Drop all entries, in the journal, too."""
        for batch in self._batches:
            if batch.segment is not None:
                batch.segment.remove()
        self._batches.clear()
        self._count = self._size = 0
        self._journal.discard()

    def abandoned(self) -> Iterator[Segment]:
        """Yield the files of dead processes, locked. The caller must close or remove each."""
        return self._journal.abandoned()

    def _close_last(self) -> None:
        if self._batches:
            segment = self._journal.rotate()
            self._batches[-1].segment = self._batches[-1].segment or segment

    def _make_room(self) -> None:
        """Drop the oldest runs that may be dropped first, or else the oldest batch."""
        self._close_last()
        for batch in self._batches:
            kept = [entry for entry in batch.entries if not entry.state.outcome.dropped_first]
            if len(kept) < len(batch.entries):
                break
        else:
            batch, kept = self._batches[0], []
        lines = [entry.line for entry in kept]
        self.dropped += len(batch.entries) - len(kept)
        self._count -= len(batch.entries) - len(kept)
        self._size -= batch.size
        batch.entries, batch.size = kept, sum(map(len, lines))
        self._size += batch.size
        if not kept:
            self.done(batch)
            self._batches.remove(batch)
        elif batch.segment is not None:
            batch.segment = self._journal.replace(batch.segment, lines)
