"""A made project, and the service over its database and its broker."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import redis
from celery import Celery
from django.conf import settings
from psycopg import sql

from tests import processes
from tests.processes import ROOT
from tests.waiting import eventually

Ended = subprocess.CompletedProcess[str]
Rows = list[tuple[Any, ...]]

TABLES = """
SELECT schemaname, tablename FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""

_brokers = count(1)


@contextmanager
def database() -> Iterator[str]:
    """Create a database for the block, and yield its URL."""
    settings.EMBEDDED.attach()  # until this process ends
    server = settings.EMBEDDED.database_url()
    name = f"project_{uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield server.replace("/systemtasks?", f"/{name}?")
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


def broker() -> str:
    """Return the URL of a database of the embedded Valkey that no other test uses."""
    settings.EMBEDDED.attach()
    return f"{settings.EMBEDDED.broker_url()}?virtual_host={next(_brokers)}"


def valkey(broker: str) -> Any:
    """Return a client of that database of the embedded Valkey."""
    database = broker.rpartition("=")[2]
    return redis.Redis(unix_socket_path=str(settings.EMBEDDED.valkey_socket), db=int(database))


def query(url: str, statement: str, *values: Any) -> Rows:
    """Return the rows of this statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def everything(url: str) -> dict[str, Rows]:
    """Return all rows of all tables, by the table."""
    rows = sql.SQL("SELECT row::text FROM {} AS row ORDER BY 1")
    with psycopg.connect(url) as connection:
        tables = connection.execute(TABLES).fetchall()
        return {
            ".".join(table): connection.execute(rows.format(sql.Identifier(*table))).fetchall()
            for table in tables
        }


class Running(NamedTuple):
    """A process."""

    log: Path
    process: "subprocess.Popen[bytes]"


class Program:
    """A program with a `manage.py` and an environment."""

    manage: Sequence[str]

    def __init__(self, folder: Path, **variables: str) -> None:
        ours = {"DATABASE_URL", "BROKER_URL", "DJANGO_SETTINGS_MODULE", "WEB_ONLY", "DEMO_TASKS"}
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        self.folder = folder
        self.environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "JOURNAL_DIR": str(folder / "journal"),
            **variables,
        }

    def call(self, *words: str, **variables: str) -> Ended:
        """Run a command of its `manage.py`."""
        return self.call_python(*self.manage, *words, **variables)

    def call_python(self, *words: str, **variables: str) -> Ended:
        """Run Python in its environment."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def run(self, *words: str, **variables: str) -> str:
        """Run a command of its `manage.py` that must succeed, and return its output."""
        ended = self.call(*words, **variables)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout.strip()

    @contextmanager
    def started(self, *command: str, until: str) -> Iterator["Running"]:
        """Start a process, wait until its log has this text, and stop it after the block."""
        log = self.folder / f"{uuid4().hex[:8]}.log"
        process = processes.start([sys.executable, "-m", *command], log, self.environment)
        try:
            assert eventually(lambda: until in log.read_text(), 60), log.read_text()
            yield Running(log, process)
        finally:
            processes.stop(process)


class Project(Program):
    """The project. Its own workers record."""

    manage = ("-m", "django")

    def __init__(
        self,
        folder: Path,
        database: str,
        broker: str,
        *,
        custom_users: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__(
            folder,
            DATABASE_URL=database,
            BROKER_URL=broker,
            DJANGO_SETTINGS_MODULE="tests.project.settings",
            CUSTOM_USERS="yes" if custom_users else "",
            KEY_PREFIX=prefix,
        )
        self.app = Celery("project", broker=broker, set_as_current=False)
        self.app.conf.broker_transport_options = {"global_keyprefix": prefix}

    def worker(self, *options: str) -> AbstractContextManager[Running]:
        """Run a worker of the project until the block ends."""
        command = ("celery", "--app", "tests.project", "worker", "--pool", "solo")
        return self.started(*command, "--loglevel", "INFO", *options, until=" ready.")

    def take_for_hours(self, task: str) -> None:
        """Take a message as a worker would that began two hours ago and still works on it."""
        self.app.send_task(task)
        with self.app.connection_for_read() as connection:
            queue = connection.SimpleQueue("celery")
            queue.get(timeout=10)
            client = valkey(self.environment["BROKER_URL"])
            [tag] = client.zrange("unacked_index", 0, -1)
            client.zadd("unacked_index", {tag: time.time() - 7200})
            channel: Any = queue.channel
            channel.do_restore = False  # as if it ran on

    def taken(self) -> tuple[int, int]:
        """Return the numbers of messages in its queue and of those that its workers have taken."""
        client = valkey(self.environment["BROKER_URL"])
        return client.llen("celery"), client.zcard("unacked_index")


class Service(Program):
    """The service, over the project's database and broker."""

    manage = ("manage.py",)

    def __init__(self, folder: Path, database: str, broker: str, **variables: str) -> None:
        super().__init__(
            folder,
            DATABASE_URL=database,
            BROKER_URL=broker,
            SECRET_KEY=settings.SECRET_KEY,
            ALLOWED_HOSTS="127.0.0.1",
            HTTPS="false",
            **variables,
        )
