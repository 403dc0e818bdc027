"""Keep on disk which runs this process has begun and not ended, in case it is killed.

A run that lasts less than BATCH_INTERVAL has no row before its end. If its process is killed, this
is all that is known of it. Another process of this host then ends it (see `Journal.abandoned`).
"""

import logging
import os
import time
from collections.abc import Iterator

from systemtasks.runs.journal_line import VERSION
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import RunRecord
from systemtasks.storage import leases
from systemtasks.storage.journal import NEW, RETRY_INTERVAL, Segment, create

logger = logging.getLogger(__name__)

SLOT = 4096
"""The bytes of a slot: one page, which the kernel never writes in part."""
SLOT_LIMIT = 1024
"""The number of runs in progress that are kept. A pool of threads or greenlets may have more."""


class Slots(Segment):
    """A file with a slot for each run in progress. A slot holds a line, or begins with a newline.

    After its first newline, a slot may hold the rest of an earlier, longer line.
    """

    suffix = f".{VERSION}.begun"
    flags = NEW & ~os.O_APPEND  # with which all is written at the end, wherever it should be

    def put(self, slot: int, line: bytes) -> None:
        """Write a line to this slot. Raise OSError if the disk does not take it."""
        if os.pwrite(self._descriptor, line, slot * SLOT) != len(line):
            raise OSError("the disk took a part of a line only")

    def records(self) -> Iterator[RunRecord]:
        """Yield the records of the runs in progress, marked as beginnings."""
        for record in super().records():
            record.is_beginning = True
            # A worker's main process ends the runs of its children, and knows why they ended.
            record.is_gone = not leases.is_own(record.lease)
            yield record

    def _lines(self) -> Iterator[bytes]:
        size = os.fstat(self._descriptor).st_size
        for offset in range(0, size, SLOT):
            line, newline, _ = os.pread(self._descriptor, SLOT, offset).partition(b"\n")
            # A slot that was never written, or not completely, has no newline.
            if line and newline:
                yield line


class Beginnings:
    """The runs that have begun in this process. The caller must not use it in two threads at once.

    Failures are logged. The beginning of a run is then not on disk, and the run goes on.
    """

    def __init__(self) -> None:
        self._file: Slots | None = None
        self._slots: dict[Run, int] = {}
        self._free: list[int] = []
        self._is_used = False  # since the file was emptied
        self._has_failed = False
        self._next_try = 0.0  # by the monotonic clock

    def add(self, run: Run) -> None:
        """Write the beginning of this run, if it fits into a slot."""
        try:
            if (file := self._current_file()) is None:
                return
            slot = self._free[-1] if self._free else len(self._slots)
            if slot >= SLOT_LIMIT or (line := run.beginning(SLOT)) is None:
                return
            file.put(slot, line)
        except OSError as error:
            if not self._has_failed:
                logger.warning("Runs that begin are not in the journal: %s", error)
            self._has_failed = True
            self._next_try = time.monotonic() + RETRY_INTERVAL
        else:
            self._has_failed = False
            self._is_used = True
            self._slots[run] = slot
            if self._free:
                self._free.pop()

    def remove(self, run: Run) -> None:
        """Empty the slot of this run, if it has one, since its end is in the journal."""
        slot = self._slots.pop(run, None)
        if slot is None:
            return
        self._free.append(slot)
        if self._file is not None and self._file.was_there():
            try:
                self._file.put(slot, b"\n")
            except OSError as error:
                logger.warning("The beginning of a run stays in the journal: %s", error)

    def tidy(self) -> None:
        """Empty the file if no run is in progress."""
        if self._is_used and not self._slots:
            self._free.clear()
            self._is_used = False
            if self._file is not None and not self._file.clear():
                self._file.close()
                self._file = None

    def delete(self) -> None:
        """Delete the file if no run is in progress."""
        if self._file is not None and not self._slots:
            self.discard()

    def discard(self) -> None:
        """Delete the file with its lines."""
        if self._file is not None:
            self._file.remove()
        self._forget()

    def close(self) -> None:
        """Close the file without changing it, as a forked child must: it is its parent's."""
        if self._file is not None:
            self._file.close()
        self._forget()

    def _current_file(self) -> Slots | None:
        """Return the file, a new one if it has been deleted, or None if the disk has just failed.

        Raise OSError if the disk fails now.
        """
        if self._file is not None and self._file.was_there():
            return self._file
        if time.monotonic() < self._next_try:
            return None
        self.close()
        self._file = create(Slots)
        return self._file

    def _forget(self) -> None:
        self._file = None
        self._slots.clear()
        self._free.clear()
        self._is_used = False
