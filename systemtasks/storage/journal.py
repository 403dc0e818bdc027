"""Keep runs on disk, from the moment they are sent or end until their rows are committed.

Lines are appended without fsync. They survive the death of the process, but not of the machine.
Each file belongs to one process, which holds a lock on it. When the process dies, the kernel
releases the lock, and another process of the same account on this host takes over the file.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.journal_line import JUNK_ERRORS, VERSION, decode
from systemtasks.runs.records import RunRecord
from systemtasks.storage.folder import folders, open_folder, open_private

logger = own_logger(__name__)

SUFFIX = f".{VERSION}.journal"
"""The suffix of the files, with the version of the lines' format.

Files of another version are left to processes of the release that wrote them.
"""
NEW = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
LEFT = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a fifo would block
SPARE_LIMIT = 2  # empty files to keep: one to write next, one while another batch is committed
RETRY_INTERVAL = 5.0  # seconds between attempts to create a file, for which a task waits
LOOK_INTERVAL = 0.1  # seconds between two checks that a file has not been deleted
PIECE = 65_536  # bytes

File = TypeVar("File", bound="Segment")


def line_limit() -> int:
    """Return the maximum size of a line, in bytes: several times the limits of its parts."""
    rules = conf()
    return 2**24 + 4 * (rules.MESSAGES_LIMIT + rules.ARGUMENTS_LIMIT + rules.TEXT_LIMIT)


def file_limit() -> int:
    """Return the maximum size of a file, in bytes: PENDING_BYTES and one more line."""
    return conf().PENDING_BYTES + line_limit()


class Segment:
    """A file of a journal, locked while it is open."""

    suffix = SUFFIX
    flags = NEW
    """How a new file is opened."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = status.st_dev, status.st_ino
        self._size = status.st_size
        self._is_whole = True
        self._was_there = True
        self._next_look = 0.0  # by the monotonic clock

    def append(self, line: bytes) -> bool:
        """Append a line. Return False if the caller must append it to another file.

        That is so if this one is deleted, or ends in a partial line that could not be removed.
        Raise OSError if the disk does not take the line. No part of the line is then left.
        """
        if not (self._is_whole and self.was_there()):
            return False
        try:
            _write(self._descriptor, line)
        except BaseException:  # the handler of a signal may raise, too
            self._cut()
            raise
        self._size += len(line)
        return True

    def _cut(self) -> None:
        """Remove what was written after the last whole line."""
        status = self._status()
        # If there is less, somebody else has emptied the file.
        self._is_whole = status is not None and status.st_size >= self._size
        if self._is_whole:
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self._is_whole = False

    def was_there(self) -> bool:
        """Return the value that `is_there` had less than LOOK_INTERVAL ago."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            self._was_there = self.is_there
        return self._was_there

    def _status(self) -> os.stat_result | None:
        """Return the status of the file, or None if the descriptor is no longer this file's.

        A task that closes descriptors which are not its own may have closed this one. Its number
        may be that of any other file now.
        """
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self._identity else None

    def records(self) -> Iterator[RunRecord]:
        """Yield the records of the file. Skip invalid lines, and log how many there were."""
        left_out = 0
        for line in self._lines():
            try:
                record = decode(line)
            except JUNK_ERRORS:
                left_out += 1
            else:
                yield record
        if left_out:
            logger.warning("%d entries of %s are not whole, and left out", left_out, self.path)

    def _lines(self) -> Iterator[bytes]:
        """Yield each line, and an empty one in place of one that is too long."""
        left, limit, line = os.fstat(self._descriptor).st_size, line_limit(), bytearray()
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            # Lines added meanwhile are not read: the process that wrote this file is dead.
            while left > 0 and (piece := file.readline(min(PIECE, left))):
                left -= len(piece)
                if len(line) <= limit:
                    line += piece
                if piece.endswith(b"\n") or not left:
                    yield bytes(line) if len(line) <= limit else b""
                    line.clear()

    def lock(self) -> bool:
        """Lock the file. Return False if another process has locked it, or it has been deleted."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self.is_there

    def clear(self) -> bool:
        """Empty the file, whose lines are committed. Return True if it can be used again."""
        if self._status() is None:
            return False
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            return False
        self._size, self._is_whole = 0, True
        return self.is_there

    @property
    def is_there(self) -> bool:
        """Return True if the file has not been deleted, so that another process can find it."""
        status = self._status()
        return status is not None and status.st_nlink > 0

    def remove(self) -> None:
        """Close the file, and delete it with its lines."""
        self.clear()  # in case the folder's permissions do not allow deleting it
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file, and so release its lock."""
        if self._status() is not None:
            os.close(self._descriptor)


class Journal:
    """The journal of one process. The caller must not use it in two threads at once."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []  # the last one takes the next line
        self._spare: list[Segment] = []
        self._failed = False
        self._next_try = 0.0  # by the monotonic clock
        self._refused: set[Path] = set()

    def append(self, line: bytes) -> None:
        """Append a line. If the disk fails, log a warning; the run is then in memory only."""
        try:
            if not (self._segments and self._segments[-1].append(line)):
                if time.monotonic() < self._next_try:
                    return
                segment = self._spare_segment() or create(Segment)
                self._segments.append(segment)
                if not segment.append(line):
                    raise FileNotFoundError(f"{segment.path} has been deleted")
        except OSError as error:
            if not self._failed:
                logger.warning("Runs are in memory only until they are rows: %s", error)
            self._failed = True
            self._next_try = time.monotonic() + RETRY_INTERVAL
        else:
            self._failed = False

    def rotate(self) -> list[Segment]:
        """Return the files with the lines since the last call. Later lines go to another file.

        There is none if the disk failed, and more than one if a file took no more lines.
        """
        segments, self._segments = self._segments, []
        return segments

    def replace(self, segments: list[Segment], lines: Iterable[bytes]) -> list[Segment]:
        """Return a new file with these lines, and remove the others.

        If the disk fails, return the others.
        """
        try:
            smaller = create(Segment)
        except OSError:
            return segments
        try:
            is_written = smaller.append(b"".join(lines))
        except OSError:
            is_written = False
        if not is_written:
            smaller.remove()
            return segments
        for segment in segments:
            segment.remove()
        return [smaller]

    def release(self, segment: Segment) -> None:
        """Empty a file whose lines are committed, to be used again. Any thread may call this.

        Creating a file takes ten times as long as writing a line, and a task would wait for it.
        """
        if len(self._spare) < SPARE_LIMIT and segment.clear():
            self._spare.append(segment)
        else:
            segment.remove()

    def tidy(self) -> None:
        """Delete the empty files."""
        while self._spare:
            self._spare.pop().remove()

    def discard(self) -> None:
        """Delete all files with their lines."""
        for segment in self.rotate():
            segment.remove()
        self.tidy()

    def forget(self) -> None:
        """Close the files without deleting them, as a forked child must: they are its parent's."""
        for segment in (*self._spare, *self._segments):
            segment.close()
        self._spare.clear()
        self._segments.clear()

    def abandoned(self, kind: type[Segment] = Segment) -> Iterator[Segment]:
        """Lock and yield the files of this kind whose processes are dead.

        The caller must close or remove each.
        """
        for path in folders():
            try:
                folder = open_private(path)
            except OSError:
                continue  # it does not exist, or another account could have written to it
            try:
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in entries if entry.name.endswith(kind.suffix)]
                for name in sorted(names):
                    if (segment := self._abandoned(kind, path / name, folder)) is not None:
                        yield segment
            finally:
                os.close(folder)

    def _abandoned(self, kind: type[Segment], path: Path, folder: int) -> Segment | None:
        """Return the file, locked, if it is a journal's and its process is dead."""
        try:
            # Examined before it is opened, because opening a device can have an effect.
            _examine(os.stat(path.name, dir_fd=folder, follow_symlinks=False))
            descriptor = os.open(path.name, LEFT, dir_fd=folder)
        except FileNotFoundError:
            return None  # its process has just deleted it
        except OSError as error:
            if path not in self._refused:
                self._refused.add(path)
                logger.warning("%s is left alone: %s", path, error)
            return None
        segment = kind(path, descriptor)
        with suppress(OSError):  # the file has been replaced, or the disk supports no locks
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


def create(kind: type[File]) -> File:
    """Return a new file of this process, locked. Raise OSError if there can be none."""
    path, folder = open_folder()
    try:
        while True:
            name = f"{os.getpid()}-{uuid4().hex}{kind.suffix}"
            file = kind(path / name, os.open(name, kind.flags, 0o600, dir_fd=folder))
            try:
                if file.lock():
                    return file
            except OSError:
                file.remove()
                raise
            # Another process took it for an abandoned file before it was locked.
            file.close()
    finally:
        os.close(folder)


def _write(descriptor: int, line: bytes) -> None:
    written = os.write(descriptor, line)
    if written != len(line):
        raise OSError(f"only {written} of {len(line)} bytes were written")


def _examine(status: os.stat_result) -> None:
    """Raise PermissionError if this cannot be a journal file of this account."""
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
