"""Find the folder of the journal, to which no other account may be able to write.

A line of the journal becomes a row, and "run again" sends a task with the arguments of that row. So
whoever can write to the folder can run tasks.
"""

import hashlib
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from django.db import connections
from django.utils.crypto import salted_hmac

from systemtasks.conf import conf

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folders() -> Iterator[Path]:
    """Yield the folders in which this account's journal may be, in the order of preference.

    They are the same for each process of the account, so that it finds the files of dead ones.
    """
    if conf().JOURNAL_DIR:
        yield Path(conf().JOURNAL_DIR)
        return
    database = connections[conf().DATABASE].settings_dict
    where = "\0".join(str(database[key]) for key in ("HOST", "PORT", "NAME", "USER"))
    account = os.geteuid()
    if (home := _home(account)) is not None:
        name = hashlib.sha256(where.encode()).hexdigest()[:12]
        yield home / ".local" / "state" / "systemtasks" / name
    # Any account can create folders there. The name is derived from SECRET_KEY, so that none can
    # create this one in advance.
    name = salted_hmac(__name__, where, algorithm="sha256").hexdigest()[:12]
    yield Path(tempfile.gettempdir()) / f"systemtasks-{account}-{name}"


def open_folder() -> tuple[Path, int]:
    """Return the path and a descriptor of the first of `folders` that can be used.

    Create the folder if it does not exist. Raise OSError if none can be used.
    """
    errors = []
    for path in folders():
        try:
            _make(path)
            return path, open_private(path)
        except OSError as error:
            errors.append(error)
    raise errors[-1]


def open_private(path: Path) -> int:
    """Return a descriptor of this folder.

    Raise OSError if it does not exist or another account can write to it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if (fault := fault_of(path)) is not None:
            raise PermissionError(f"{path} {fault}") from error
        raise
    if (fault := _fault_of(os.fstat(descriptor))) is not None:
        os.close(descriptor)
        raise PermissionError(f"{path} {fault}")
    return descriptor


def fault_of(path: Path) -> str | None:
    """Return why this folder cannot be used, as the end of a sentence, or None if it can.

    Raise FileNotFoundError, or another OSError, if its status cannot be read.
    """
    return _fault_of(path.lstat())


def _fault_of(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link, which might lead to another folder tomorrow"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return f"belongs to another account (its uid is {status.st_uid}, not {os.geteuid()})"
    if status.st_mode & OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        return f"is open to other accounts, which may write to it (its mode is {mode:04o})"
    return None


def _make(path: Path) -> None:
    """Create this folder and its missing parents, accessible to this account only."""
    if not path.exists():
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                with suppress(FileExistsError):  # created by another process, or a broken link
                    folder.mkdir(mode=0o700)


@cache
def _home(account: int) -> Path | None:
    """Return the account's home folder, or None if it has none of its own.

    It is not taken from $HOME or $XDG_STATE_HOME. Those may be missing or another account's in some
    processes, under sudo, systemd or supervisor.
    """
    try:
        home = Path(pwd.getpwuid(account).pw_dir)
        is_own = home.is_absolute() and home.stat().st_uid == account
    except (KeyError, OSError):
        return None
    return home if is_own else None
