"""Where the journal is: in a folder that no other account can write to, since it is believed.

What a line says becomes a row, and "run again" sends a task with the arguments of that row.
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
    """Yield the folders in which this account's journal may be, the first choice first.

    They are the same for each process of the account, so that one finds what another has left.
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
    # Anybody may make folders there, but knows no project's SECRET_KEY, and so not this name.
    name = salted_hmac(__name__, where, algorithm="sha256").hexdigest()[:12]
    yield Path(tempfile.gettempdir()) / f"systemtasks-{account}-{name}"


def open_folder() -> tuple[Path, int]:
    """Return the first of `folders` that can be used, and a descriptor of it.

    It is made where there is none. Raises OSError where none can be made, or is private.
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

    Raises OSError where there is none, or another account can write to it.
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
    """Return why this folder is not used, as the end of a sentence; None where it can be.

    Raises FileNotFoundError, or another OSError, where it cannot be looked at.
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
    """Make this folder, and those above it, for this account alone."""
    if not path.exists():
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                with suppress(FileExistsError):  # by another process, or a link that leads nowhere
                    folder.mkdir(mode=0o700)


@cache
def _home(account: int) -> Path | None:
    """Return the account's home, if it has one.

    $HOME and $XDG_STATE_HOME may be missing, or another account's, in some of its processes: under
    sudo, systemd or supervisor.
    """
    try:
        home = Path(pwd.getpwuid(account).pw_dir)
        is_own = home.is_absolute() and home.stat().st_uid == account
    except (KeyError, OSError):
        return None
    return home if is_own else None
