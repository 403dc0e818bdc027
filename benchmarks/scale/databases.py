"""The databases of one Postgres that are compared, all with the same tables.

This process uses one of them after the other. So each question is asked of both within a second,
and whatever else the machine does falls on both. The connections stay open, as those of a service
do: a new one would read the catalogue of all partitions again.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections

from systemtasks import migrations

SERVER_SETTINGS = {
    "max_wal_size": "'8GB'",
    "checkpoint_timeout": "'30min'",
    "max_parallel_workers_per_gather": "0",
}
"""Settings of Postgres for filling and comparing. All others are the embedded server's."""


@dataclass(frozen=True)
class Database:
    """One of the databases, and what `fill.py` writes to it."""

    name: str
    runs: int
    more_tasks: int = 0
    """Tasks without runs."""


def prepare(databases: list[Database]) -> list[Database]:
    """Make the databases, with all tables and without rows. Return those that were not there.

    A database is there if an earlier call with the same KEEP has filled it, and `keep` was called.
    """
    call_command("migrate", verbosity=0)
    template = str(connection.settings_dict["NAME"])
    with _administrating() as cursor:
        for setting, value in SERVER_SETTINGS.items():
            cursor.execute(f"ALTER SYSTEM SET {setting} = {value}")
        cursor.execute("SELECT pg_reload_conf()")
        cursor.execute("SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database")
        kept = dict(cursor.fetchall())
        made = [each for each in databases if kept.get(each.name) != _mark(each)]
        for database in made:
            cursor.execute(f"DROP DATABASE IF EXISTS {database.name}")
            cursor.execute(f"CREATE DATABASE {database.name} TEMPLATE {template}")
    return made


def keep(database: Database) -> None:
    """Mark a database as filled, so that the next `prepare` leaves it as it is."""
    with connection.cursor() as cursor:
        cursor.execute(f"COMMENT ON DATABASE {database.name} IS '{_mark(database)}'")


def _mark(database: Database) -> str:
    """Return what a filled database says of itself. Other migrations make other tables."""
    folder = Path(migrations.__path__[0])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("0*.py")))
    digest = hashlib.sha256(text).hexdigest()[:12]
    return f"{database.runs} runs, {database.more_tasks} more tasks, migrations {digest}"


_opened = threading.local()


def use(database: Database) -> None:
    """Send all further queries of this thread to this database."""
    opened = _opened.__dict__.setdefault("connections", {})
    if database.name not in opened:
        settings = {**deepcopy(connection.settings_dict), "NAME": database.name}
        opened[database.name] = type(connections[DEFAULT_DB_ALIAS])(settings, DEFAULT_DB_ALIAS)
    connections[DEFAULT_DB_ALIAS] = opened[database.name]


def close() -> None:
    """Close the connections of this thread."""
    for opened in _opened.__dict__.pop("connections", {}).values():
        opened.close()


@contextmanager
def _administrating() -> Iterator[Any]:
    """Connect to a database that is neither a template nor one of those that are compared."""
    connection.close()
    own: Any = connection
    with own._nodb_cursor() as cursor:  # as Django's tests do
        yield cursor
