"""Runs on disk, from the moment they are sent or end until their rows are committed.

Appended without fsync: that outlives the process, not the machine. Each file belongs to one
process, which holds a lock on it; the kernel drops a dead process's locks, and then the next
process on this host takes the file over.
"""

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

from django.db import connections

from systemtasks.conf import conf
from systemtasks.runs.reading import JUNK_ERRORS, read
from systemtasks.runs.records import RunRecord

logger = logging.getLogger(__name__)

SUFFIX = ".3.journal"
"""With the number of the lines' format: another release's files wait for a process of that."""
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
SPARE_LIMIT = 2  # empty files that a process keeps: one is written to, one is being committed


def default_folder() -> Path:
    """The folder of this account and this database, below the system's temporary folder."""
    database = connections[conf().DATABASE].settings_dict
    where = "\0".join(str(database[key]) for key in ("HOST", "PORT", "NAME", "USER"))
    name = hashlib.sha256(where.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"systemtasks-{os.geteuid()}-{name}"


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
        """What the file holds; a half-written or foreign line is left out with a warning."""
        for line in self.path.read_bytes().splitlines():
            try:
                yield read(line)
            except JUNK_ERRORS:
                logger.warning("An entry of %s is not whole, and left out", self.path)

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
        """Delete the file: all that it holds is committed."""
        self.path.unlink(missing_ok=True)
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

    def append(self, line: bytes) -> None:
        """Write a record's line down. Where the disk fails, it is in memory only; that is said."""
        try:
            if self._segment is None:
                self._segment = self._spare_segment() or self._new_segment()
            self._segment.append(line)
        except OSError as error:
            if not self._failed:
                logger.warning("Runs are in memory only until they are rows: %s", error)
            self._failed = True
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

    def forget(self) -> None:
        """Close the files without removing them: a forked child must leave them to its parent."""
        for segment in (*self._spare, *filter(None, (self._segment,))):
            segment.close()
        self._spare.clear()
        self._segment = None

    def abandoned(self) -> Iterator[Segment]:
        """Yield the files whose processes are dead, each of which is the caller's from now on."""
        try:
            paths = sorted(self._folder().glob(f"*{SUFFIX}"))
        except OSError:
            return
        for path in paths:
            try:
                segment = Segment(path, os.open(path, os.O_RDWR))
            except OSError:
                continue  # its process has just removed it
            try:
                mine = segment.lock()
            except OSError:  # no lock can be had on this disk
                mine = False
            if mine:
                yield segment
            else:
                segment.close()

    def _folder(self) -> Path:
        configured = conf().JOURNAL_DIR
        return Path(configured) if configured else default_folder()

    def _spare_segment(self) -> Segment | None:
        while self._spare:
            segment = self._spare.pop()
            if segment.is_there:
                return segment
            segment.close()
        return None

    def _new_segment(self) -> Segment:
        folder = self._folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to somebody else")
        while True:
            path = folder / f"{os.getpid()}-{uuid4().hex}{SUFFIX}"
            segment = Segment(path, os.open(path, FLAGS, 0o600))
            try:
                if segment.lock():
                    return segment
            except OSError:
                segment.remove()
                raise
            # Another process has taken it for an abandoned one before it was locked.
            segment.close()
