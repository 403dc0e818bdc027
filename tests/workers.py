"""Real workers, as processes of their own, over the test database and broker."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from config.celery import app
from systemtasks.models import TaskRun
from tests import processes
from tests.waiting import eventually

POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "4"),
    "solo": ("--pool", "solo"),
    "gevent": ("--pool", "gevent", "--concurrency", "4"),
}
OLDEST = str(settings.BASE_DIR / ".venv" / "oldest")
"""The environment with the oldest packages, including Celery, that the two apps allow."""


def environment() -> dict[str, str]:
    """Return the environment with which a process uses this test's services."""
    database = connection.settings_dict
    user, password, name, host, port = (
        quote(str(database[key]), safe="") for key in ("USER", "PASSWORD", "NAME", "HOST", "PORT")
    )
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{user}:{password}@/{name}?host={host}&port={port or 5432}",
        "BROKER_URL": settings.CELERY_BROKER_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "HTTPS": "false",
    }


class Worker:
    """A running `celery worker`; a context manager that stops it warmly.

    It looks for its packages in the folder `packages` first, or where this process does.
    """

    def __init__(
        self,
        log: Path,
        *options: str,
        include: str = "tests.tasks",
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        packages: str | None = None,
        **variables: str,
    ) -> None:
        self.log = log
        self._command = [*launcher, sys.executable, "-m", "celery", "--app", "config", "worker"]
        # Otherwise it would wait a second for answers of other workers before it is ready.
        self._command += ["--without-mingle", "--without-gossip"]
        self._command += ["--include", include, "--loglevel", "INFO", *options]
        self._environment = environment
        self._variables = variables
        self._packages = packages
        if packages is not None:
            self._variables["PYTHONPATH"] = packages

    def __enter__(self) -> Self:
        if self._packages == OLDEST and not OLDEST.startswith(sys.prefix):
            pytest.skip("the oldest packages are installed for another interpreter, that of .venv")
        if self._environment is None:
            with app.connection_for_write() as broker:
                app.control.purge(connection=broker)
        services = environment() if self._environment is None else self._environment
        self.process = processes.start(self._command, self.log, {**services, **self._variables})
        try:
            assert eventually(lambda: " ready." in self.log.read_text()), self.log.read_text()
            assert self._packages != OLDEST or self.is_of_celery_5_6, self.log.read_text()
        except BaseException:  # Ctrl-C as well
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_of_celery_5_6(self) -> bool:
        """Return True if its banner says so."""
        return " v5.6." in self.log.read_text()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the worker and its children at once, as when a host goes down."""
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """Shut it down warmly, as a deployment does."""
        processes.stop(self.process)

    def kill(self) -> None:
        """Kill it and its children at once, as the kernel does if memory runs out."""
        processes.kill(self.process)


def send(name: str, *args: Any, **kwargs: Any) -> str:
    """Send a task. Return its Celery id."""
    return str(app.send_task(name, args=args, kwargs=kwargs).id)


def outcome(worker: Worker, celery_id: str) -> TaskRun:
    """Wait for the final end of the run, and return the run."""
    found = TaskRun.objects.filter(
        celery_id=celery_id, finish_timestamp__isnull=False, lease__isnull=True
    )
    assert eventually(found.exists), (list(TaskRun.objects.values()), worker.log.read_text())
    return found.get()
