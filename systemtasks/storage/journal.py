"""Runs on disk, from the moment they are sent or end until their rows are committed.

Appended without fsync: that outlives the process, not the machine. Each file belongs to one
process, which holds a lock on it; the kernel drops a dead process's locks, and then the next
process of the same account on this host takes the file over.
"""

import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from systemtasks.conf import conf
from systemtasks.runs.reading import JUNK_ERRORS, read
from systemtasks.runs.records import RunRecord
from systemtasks.storage.folder import folders, open_folder, open_private

logger = logging.getLogger(__name__)

SUFFIX = ".3.journal"
"""With the number of the lines' format: another release's files wait for a process of that."""
NEW = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
LEFT = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK  # a fifo would wait for a writer
SPARE_LIMIT = 2  # empty files that a process keeps: one is written to, one is being committed
RETRY_INTERVAL = 5.0  # seconds between two tries to make a file, for which a task waits
PIECE = 65_536  # bytes


def line_limit() -> int:
    """Return how many bytes a line may have: several times what the limits of its parts allow."""
    rules = conf()
    return 2**24 + 4 * (rules.MESSAGES_LIMIT + rules.ARGUMENTS_LIMIT + rules.TEXT_LIMIT)


def file_limit() -> int:
    """Return how many bytes a file may have: all that waits, or a single line that has no room."""
    return conf().PENDING_BYTES + line_limit()


class Segment:
    """One file of a journal, locked for as long as it is open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def append(self, line: bytes) -> None:
        """Add a line; raises OSError where the disk does not take it whole."""
        written = os.write(self._descriptor, line)
        if written != len(line):
            # The half line ends here, so that it spoils no other.
            os.write(self._descriptor, b"\n")
            raise OSError(f"only {written} of {len(line)} bytes were written")

    def records(self) -> Iterator[RunRecord]:
        """Yield what the file holds, without half-written or foreign lines, of which it warns."""
        left_out = 0
        for line in self._lines():
            try:
                record = read(line)
            except JUNK_ERRORS:
                left_out += 1
            else:
                yield record
        if left_out:
            logger.warning("%d entries of %s are not whole, and left out", left_out, self.path)

    def _lines(self) -> Iterator[bytes]:
        """Yield each line, and nothing instead of one that is too long."""
        left, limit, line = os.fstat(self._descriptor).st_size, line_limit(), bytearray()
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            # What is added meanwhile is none of this file's process, which is gone.
            while left > 0 and (piece := file.readline(min(PIECE, left))):
                left -= len(piece)
                if len(line) <= limit:
                    line += piece
                if piece.endswith(b"\n") or not left:
                    yield bytes(line) if len(line) <= limit else b""
                    line.clear()

    def lock(self) -> bool:
        """Lock the file, unless another process has; whether it is there, and this one's now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self.is_there

    def clear(self) -> bool:
        """Empty the file, whose lines are committed; whether it can be used anew."""
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            return False
        return self.is_there

    @property
    def is_there(self) -> bool:
        """Whether the file still has its name, so that another process would find it."""
        return os.fstat(self._descriptor).st_nlink > 0

    def remove(self) -> None:
        """Delete the file: all that it holds is committed, or not to be."""
        self.clear()  # should the folder not let it be deleted
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class Journal:
    """The journal of one process; the caller sees to it that one thread uses it at once."""

    def __init__(self) -> None:
        self._segment: Segment | None = None
        self._spare: list[Segment] = []
        self._failed = False
        self._next_try = 0.0  # by the monotonic clock
        self._refused: set[Path] = set()

    def append(self, line: bytes) -> None:
        """Write a record's line down. Where the disk fails, it is in memory only; that is said."""
        try:
            if self._segment is None:
                if time.monotonic() < self._next_try:
                    return
                self._segment = self._spare_segment() or self._new_segment()
            self._segment.append(line)
        except OSError as error:
            if not self._failed:
                logger.warning("Runs are in memory only until they are rows: %s", error)
            self._failed = True
            self._next_try = time.monotonic() + RETRY_INTERVAL
        else:
            self._failed = False

    def rotate(self) -> Segment | None:
        """The file so far, for whoever writes its rows; what comes next goes into a new one."""
        segment, self._segment = self._segment, None
        return segment

    def replace(self, segment: Segment, lines: Iterable[bytes]) -> Segment:
        """The file that holds these lines instead; the same one where the disk fails."""
        try:
            smaller = self._new_segment()
        except OSError:
            return segment
        try:
            smaller.append(b"".join(lines))
        except OSError:
            smaller.remove()
            return segment
        segment.remove()
        return smaller

    def release(self, segment: Segment) -> None:
        """Take back a file whose lines are committed, for lines to come; any thread may.

        To make a file takes ten times as long as to write a line, and a task would wait for it.
        """
        if len(self._spare) < SPARE_LIMIT and segment.clear():
            self._spare.append(segment)
        else:
            segment.remove()

    def tidy(self) -> None:
        """Delete the files that hold nothing."""
        while self._spare:
            self._spare.pop().remove()

    def discard(self) -> None:
        """Delete the files, whatever they hold."""
        if (segment := self.rotate()) is not None:
            segment.remove()
        self.tidy()

    def forget(self) -> None:
        """Close the files without removing them: a forked child must leave them to its parent."""
        for segment in (*self._spare, *filter(None, (self._segment,))):
            segment.close()
        self._spare.clear()
        self._segment = None

    def abandoned(self) -> Iterator[Segment]:
        """Yield the files whose processes are dead, each of which is the caller's from now on."""
        for path in folders():
            try:
                folder = open_private(path)
            except OSError:
                continue  # there is none, or nothing in it is to be believed
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
                for name in names:
                    if (segment := self._abandoned(path / name, folder)) is not None:
                        yield segment
            finally:
                os.close(folder)

    def _abandoned(self, path: Path, folder: int) -> Segment | None:
        """Return the file, locked, if its process is dead and it is one of a journal."""
        try:
            # Before it is opened, which means something to a device.
            _examine(os.stat(path.name, dir_fd=folder, follow_symlinks=False))
            descriptor = os.open(path.name, LEFT, dir_fd=folder)
        except FileNotFoundError:
            return None  # its process has just removed it
        except OSError as error:
            if path not in self._refused:
                self._refused.add(path)
                logger.warning("%s is left alone: %s", path, error)
            return None
        segment = Segment(path, descriptor)
        with suppress(OSError):  # it is another file by now, or this disk has no locks
            _examine(os.fstat(descriptor))
            if segment.lock():
                return segment
        segment.close()
        return None

    def _spare_segment(self) -> Segment | None:
        while self._spare:
            segment = self._spare.pop()
            if segment.is_there:
                return segment
            segment.close()
        return None

    def _new_segment(self) -> Segment:
        path, folder = open_folder()
        try:
            while True:
                name = f"{os.getpid()}-{uuid4().hex}{SUFFIX}"
                segment = Segment(path / name, os.open(name, NEW, 0o600, dir_fd=folder))
                try:
                    if segment.lock():
                        return segment
                except OSError:
                    segment.remove()
                    raise
                # Another process has taken it for an abandoned one before it was locked.
                segment.close()
        finally:
            os.close(folder)


def _examine(status: os.stat_result) -> None:
    """Raise PermissionError where this can be no journal's file of this account."""
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError("it is no regular file")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to another account (its uid is {status.st_uid})")
    if status.st_nlink != 1:
        raise PermissionError("it has another name as well")
    if status.st_size > file_limit():
        raise PermissionError(
            f"it has {status.st_size} bytes, and PENDING_BYTES allows {file_limit()}"
        )
