"""Use another account of this machine. Only root can."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest


def as_nobody(function: Callable[[], object]) -> None:
    """Call the function in a process of another account. Assert that it raises nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root may be another account")
    if (child := os.fork()) == 0:
        status = 1
        try:
            account = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            function()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0


def chown_to_nobody(path: Path) -> None:
    """Give the file or folder to another account."""
    if os.geteuid() != 0:
        pytest.skip("only root may give a file to another account")
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
