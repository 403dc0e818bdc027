"""Ask the service as a browser or a program does, and note what its statements take.

What is compared is the processor time of the Postgres process that answers, because other programs
on the machine change it little. Postgres gets no parallel workers, whose time would be left out; a
busy server has none to spare either.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from knox.models import AuthToken

from benchmarks.scale.databases import Database, use

LIMIT = 10
"""Seconds after which Postgres cancels a statement."""
REPEATS = 3
SLOW = 2000.0  # milliseconds; a slower question is asked once


@dataclass
class Statement:
    """A statement of a request, and the milliseconds that it took by the clock."""

    sql: str
    parameters: Any
    milliseconds: float


@dataclass
class Figures:
    """The figures of one URL in one database."""

    url: str
    database: Database
    cpu: float = 0.0
    """Milliseconds of Postgres's processor time a request, the median of some."""
    clock: float = 0.0
    """Milliseconds of the whole request by the clock, likewise."""
    status: int = 0
    statements: list[Statement] = field(default_factory=list)
    """The statements of the last request."""

    @property
    def slowest(self) -> Statement | None:
        """The slowest statement that reads tasks or runs; None if there is none, as for a 400."""
        # A prepared statement has its own parameters, and a count of many runs is an EXPLAIN.
        read = (
            each
            for each in self.statements
            if "systemtasks_" in each.sql and "$1" not in each.sql and "EXPLAIN" not in each.sql
        )
        return max(read, key=lambda each: each.milliseconds, default=None)


class Asker:
    """Clients that are logged in, for one database."""

    def __init__(self, database: Database) -> None:
        """Make a user there who may view everything."""
        self.database = database
        use(database)
        user = User.objects.filter(username="reader").first()  # of a database that was kept
        user = user or User.objects.create_superuser("reader")
        _, bearer = AuthToken.objects.create(user, expiry=None)
        self._program = _client(headers={"authorization": f"Bearer {bearer}"})
        self._browser = _client()
        self._browser.force_login(user)

    def ask(self, url: str, repeats: int = REPEATS, *, keeps_plans: bool = False) -> Figures:
        """Ask for a URL, and return its figures.

        With more than one of the `repeats`, a first request, which fills caches, is left out. With
        `keeps_plans`, Postgres plans the query of a list the first time only.
        """
        use(self.database)
        own: Any = connection
        own.statement_seconds = LIMIT  # of config.postgres
        process = backend()
        client = self._browser if url.startswith("/admin/") else self._program
        figures = Figures(url, self.database)
        times: list[tuple[float, float]] = []
        for _ in range(repeats + (repeats > 1)):
            figures.statements.clear()
            before, clock = cpu(process), time.perf_counter()
            if not keeps_plans:
                _forget_plans(own)
            with noted(figures.statements):
                answer: Any = client.get(url)
                if answer.streaming:
                    next(iter(answer.streaming_content))
            figures.status = answer.status_code
            took = time.perf_counter() - clock
            times.append((cpu(process) - before, took * 1000))
            if took * 1000 > SLOW:
                break
        figures.cpu, figures.clock = map(statistics.median, zip(*times[-repeats:], strict=True))
        return figures


def _forget_plans(connection: Any) -> None:  # noqa: ANN401 - Django's
    if kept := getattr(connection.connection, "systemtasks_pages", None):
        kept.forget(0)


def backend() -> int:
    """Return the id of the Postgres process that answers this thread."""
    own: Any = connection
    own.ensure_connection()
    return int(own.connection.info.backend_pid)


def cpu(process: int) -> float:
    """Return the processor time of a process, in milliseconds."""
    nanoseconds, *_ = Path(f"/proc/{process}/schedstat").read_text().split()
    return int(nanoseconds) / 1e6


def _client(**options: Any) -> Client:  # noqa: ANN401
    return Client(raise_request_exception=False, SERVER_NAME="localhost", **options)


@contextmanager
def noted(statements: list[Statement]) -> Iterator[None]:
    """Add each statement that is executed in the block to `statements`."""

    def note(execute: Callable[..., Any], sql: str, parameters: Any, *others: Any) -> Any:  # noqa: ANN401
        began = time.perf_counter()
        try:
            return execute(sql, parameters, *others)
        finally:
            took = (time.perf_counter() - began) * 1000
            statements.append(Statement(sql, parameters, took))

    with connection.execute_wrapper(note):
        yield


def explain(slowest: Statement, database: Database) -> Any:  # noqa: ANN401 - JSON
    """Execute a statement again, and return its plan; only planned if it is cancelled again."""
    use(database)
    with connection.cursor() as cursor:
        try:
            cursor.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {slowest.sql}", slowest.parameters
            )
        except OperationalError:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {slowest.sql}", slowest.parameters)
        [[[plan]]] = cursor.fetchall()
    return plan
