"""The statistics are what a recount of the runs says, whatever is killed at the turn of an hour."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from tests import processes
from tests.chaos.stage import Scene
from tests.processes import ROOT
from tests.waiting import eventually

RATE = 360
"""How many times as fast the clock of this test's database is."""
HOUR = 3600 / RATE
"""Seconds in which the database counts an hour."""
ROUNDS = 4
COUNT = 40

# Found before the functions of Postgres. So the statements, the triggers and the housekeeping all
# have the same hours. Each is about an hour of the database's, and none of ours.
CLOCK = """
    CREATE SCHEMA hurried;
    CREATE FUNCTION hurried.hurry(moment timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql
        AS $$ SELECT '{began}'::timestamptz + (moment - '{began}'::timestamptz) * {rate} $$;
    CREATE FUNCTION hurried.now() RETURNS timestamptz STABLE LANGUAGE sql
        AS $$ SELECT hurried.hurry(pg_catalog.now()) $$;
    CREATE FUNCTION hurried.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
        AS $$ SELECT hurried.hurry(pg_catalog.statement_timestamp()) $$;
    CREATE FUNCTION hurried.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
        AS $$ SELECT hurried.hurry(pg_catalog.clock_timestamp()) $$;
    CREATE FUNCTION hurried.make_interval(secs float8) RETURNS interval IMMUTABLE LANGUAGE sql
        AS $$ SELECT pg_catalog.make_interval(secs => secs * {rate}) $$;
    ALTER DATABASE hurried SET search_path = hurried, pg_catalog, public;
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def hurried(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the scene a database in which hours are short, and return its URL."""
    own = scene.stage.database
    url = own.replace("/systemtasks?", "/hurried?")
    with psycopg.connect(own, autocommit=True) as connection:
        connection.execute("CREATE DATABASE hurried")
    with psycopg.connect(url, autocommit=True) as connection:
        [began] = connection.execute("SELECT now()").fetchone() or ()
        connection.execute(CLOCK.format(began=began, rate=RATE))
    monkeypatch.setitem(scene.stage.environment, "DATABASE_URL", url)
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env=scene.stage.environment, check=True)
    return url


@contextmanager
def housekeeper(scene: Scene) -> Iterator[None]:
    """Fold runs for the length of the block, then be killed in whatever it does."""
    environment = {**scene.stage.environment, "DJANGO_SETTINGS_MODULE": "config.settings"}
    environment["JOURNAL_DIR"] = str(scene.journal)
    command = [sys.executable, "-m", "tests.chaos.housekeeper", "fold"]
    process = processes.start(command, scene.notes.parent / "housekeeper.log", environment)
    try:
        yield
        assert process.poll() is None, (scene.notes.parent / "housekeeper.log").read_text()
    finally:
        processes.kill(process)


def turn(url: str) -> float:
    """Return when the database's next hour begins, by the monotonic clock."""
    with psycopg.connect(url) as connection:
        [seconds] = (
            connection.execute(
                "SELECT extract(epoch FROM now() - date_trunc('hour', now()))"
            ).fetchone()
            or ()
        )
    return time.monotonic() + (3600 - float(seconds)) / RATE


def is_past(moment: float) -> bool:
    return time.monotonic() > moment


def test_statistics_are_exact_whatever_is_killed_at_the_turn_of_an_hour(
    scene: Scene, hurried: str
) -> None:
    for number in range(ROUNDS):
        with scene.worker() as worker, housekeeper(scene):
            scene.work(COUNT)
            next_hour = turn(hurried)
            scene.postgres.kill()
            worker.kill_child()
            # These runs are written after their hour, which is counted before.
            scene.work(COUNT)
            assert eventually(partial(is_past, next_hour), 2 * HOUR)
            scene.postgres.start()
            scene.work(COUNT)
            if number % 2:
                worker.kill()
    with scene.worker():
        scene.run_out()
        assert eventually(lambda: not scene.left(), 60), scene.left()
    command = [sys.executable, "-m", "tests.chaos.housekeeper", "compare"]
    environment = {**scene.stage.environment, "DJANGO_SETTINGS_MODULE": "config.settings"}
    compared = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)
    assert found["is_exact"], found
    assert found["runs"] > ROUNDS * COUNT
    assert found["hours"] >= ROUNDS
    assert found["late"] > 0
