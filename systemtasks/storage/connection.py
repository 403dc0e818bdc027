"""Name the connections to Postgres, so that pg_stat_activity says whose they are."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

LONGEST_NAME = 63
"""Bytes of a connection's name that Postgres keeps."""

_worker: int | None = None
"""The id of the worker's main process, in that process and its children."""


def name_worker() -> None:
    """Name the connections of this process as a worker's, and those of processes that it forks."""
    global _worker
    _worker = os.getpid()


def process_name() -> str:
    """Return the name of this process for its connections: `systemtasks worker 4242@host`."""
    name = f"systemtasks {_role()} {os.getpid()}@{socket.gethostname()}"
    return name.encode("ascii", "replace").decode()[:LONGEST_NAME]


def name_connection(connection: Any) -> None:  # noqa: ANN401 - Django's, of any database
    """Name this wrapper's next connections after the process, unless the project names them.

    The connections of a pool have no names: they serve one thread after the other.
    """
    options = connection.settings_dict["OPTIONS"]
    if connection.vendor == "postgresql" and not options.get("pool"):
        # A copy, since the wrappers of other threads have the same dictionary.
        named = {"fallback_application_name": process_name(), **options}
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": named}


def _role() -> str:
    """Return what this process does: `worker`, `worker's child`, `beat`, or a program's name."""
    if _worker is not None:
        return "worker" if _worker == os.getpid() else "worker's child"
    program, *words = sys.argv or [""]
    if "beat" in words:
        return "beat"
    path = Path(program)
    name = path.parent.name if path.stem == "__main__" else path.stem
    return f"{name} {words[0]}" if name == "manage" and words else name
