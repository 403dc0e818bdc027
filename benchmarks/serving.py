"""How fast the API answers: `.venv/bin/python -m benchmarks.serving`.

Over one database and with one way to start Granian it asks, in turns: the service; the same two
endpoints of the conventional stack, once with this service's kept connections and once with
Django's default of a connection a request; and a bare WSGI callable that sends the bytes of one
prepared statement. Each is asked by `wrk` over 8 connections. It needs `wrk` (apt-get install wrk),
and about 2 GB below the system's temporary folder for a million rows.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

BIN = Path(sys.executable).parent
CONNECTIONS = 8
WORKERS, THREADS = 2, 4  # as in docker-compose.yml
PATH = "/api/v3/events/system_tasks/"

FILL = """
INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp,
    finish_timestamp, duration, status, messages, expires)
SELECT gen_random_uuid(), 'app.tasks.sync', n::text, 'Fetch what has changed.',
    now() - n * '1 s'::interval, now(), 1.25, 'successful', %s, now() + '30 days'::interval
FROM generate_series(%s, %s) n
"""
MESSAGES = [
    {
        "timestamp": "2024-06-01T12:00:00.500000Z",
        "log_level": "info",
        "logger": "app.tasks",
        "event": f"Fetched {number * 50} of 250 users",
        "attributes": {"page": number, "directory": "ldap-1"},
    }
    for number in range(1, 6)
]


@dataclass
class Stack:
    """One of those that are asked."""

    name: str
    application: str
    port: int
    authorization: str
    environment: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="for each measurement")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 1_000_000])
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("This needs wrk: apt-get install wrk")
    data = tempfile.mkdtemp(prefix="serving-")
    os.environ |= {"DATA_DIR": data, "DJANGO_SETTINGS_MODULE": "benchmarks.serving_conventional"}
    from django.conf import settings

    settings.EMBEDDED.attach()
    try:
        stacks = prepare()
        figures: dict[tuple[str, str, int], list[float]] = {}
        filled = 0
        with serving(stacks):
            for rows in options.rows:
                fill(filled + 1, rows)
                filled = rows
                measure(stacks, rows, options.rounds, options.seconds, figures)
        report(figures, options.rows)
    finally:
        from django.db import connection

        connection.close()
        settings.EMBEDDED.detach()
        shutil.rmtree(data, ignore_errors=True)


def prepare() -> list[Stack]:
    """Make the tables and a token for each stack."""
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import Permission, User
    from django.core.management import call_command
    from django.db import connection
    from knox.models import AuthToken
    from rest_framework.authtoken.models import Token

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX systemtask_search")  # a million rows take long without it, too
    user = User.objects.create_user("reader")
    user.user_permissions.add(Permission.objects.get(codename="view_systemtask"))
    _, ours = AuthToken.objects.create(user, expiry=None)
    theirs = Token.objects.create(user=user, key=secrets.token_hex(20)).key
    environment = {
        **os.environ,
        "DATABASE_URL": settings.EMBEDDED.database_url(),
        "BROKER_URL": settings.EMBEDDED.broker_url(),
        "SECRET_KEY": settings.SECRET_KEY,
        "ALLOWED_HOSTS": "*",
        "HTTPS": "false",
    }
    service = environment | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    conventional = "benchmarks.serving_conventional_wsgi:application"
    anew = environment | {"CONN_MAX_AGE": "0"}
    return [
        Stack("service", "config.wsgi:application", 8101, f"Bearer {ours}", service),
        Stack("conventional", conventional, 8102, f"Token {theirs}", environment),
        Stack("conventional, defaults", conventional, 8103, f"Token {theirs}", anew),
        Stack("limit", "benchmarks.serving_limit:application", 8104, "", environment),
    ]


def fill(first: int, last: int) -> None:
    """Add rows by these numbers, each one older than the one before."""
    from django.db import connection

    messages = json.dumps(MESSAGES if first == 1 else MESSAGES[:1])
    with connection.cursor() as cursor:
        cursor.execute(FILL, [messages, first, last])
        cursor.execute("VACUUM ANALYZE systemtasks_systemtask")
        cursor.execute("CHECKPOINT")


@contextmanager
def serving(stacks: list[Stack]) -> Iterator[None]:
    """Have every stack's server run."""
    processes = []
    try:
        for stack in stacks:
            command = [str(BIN / "granian"), "--interface", "wsgi", "--host", "127.0.0.1"]
            command += ["--port", str(stack.port), "--workers", str(WORKERS), "--no-ws"]
            command += ["--blocking-threads", str(THREADS), "--log-level", "error"]
            processes.append(subprocess.Popen([*command, stack.application], env=stack.environment))
        for stack in stacks:
            while socket.socket().connect_ex(("127.0.0.1", stack.port)):
                time.sleep(0.1)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def measure(
    stacks: list[Stack],
    rows: int,
    rounds: int,
    seconds: int,
    figures: dict[tuple[str, str, int], list[float]],
) -> None:
    """Ask each stack for each thing in turn; the first round only warms up."""
    from systemtasks.models import SystemTask

    one = f"{PATH}{SystemTask.objects.latest('start_timestamp').uuid}/"
    for number in range(rounds + 1):
        for stack in stacks:
            for what, path in (("one", one), ("list of 20", PATH), ("one, 304", one)):
                headers = {"Authorization": stack.authorization}
                if what == "one, 304":
                    if stack.name != "service":
                        continue
                    headers["If-None-Match"] = etag(stack, path, headers)
                rate = wrk(stack, path, headers, seconds)
                if number:
                    figures.setdefault((what, stack.name, rows), []).append(rate)


def etag(stack: Stack, path: str, headers: dict[str, str]) -> str:
    request = Request(f"http://127.0.0.1:{stack.port}{path}", headers=headers)
    with urlopen(request) as answer:  # noqa: S310
        return str(answer.headers["ETag"])


def wrk(stack: Stack, path: str, headers: dict[str, str], seconds: int) -> float:
    """Answers a second."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    url = f"http://127.0.0.1:{stack.port}{path}"
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or not (match := re.search(r"Requests/sec:\s+([\d.]+)", said)):
        sys.exit(f"{stack.name} does not answer {path}:\n{said}")
    return float(match[1])


def report(figures: dict[tuple[str, str, int], list[float]], sizes: list[int]) -> None:
    """Print the medians as one table."""
    medians: dict[Any, float] = {key: median(rates) for key, rates in figures.items()}
    print(f"{'answers a second, median':32}" + "".join(f"{size:>12,} rows" for size in sizes))
    for what, name in dict.fromkeys((what, name) for what, name, _ in medians):
        rates = [medians[what, name, size] for size in sizes]
        line = f"{what}: {name:20}"
        print(f"{line:32}" + "".join(f"{rate:17,.0f}" for rate in rates))
    print()
    for other in ("conventional", "conventional, defaults", "limit"):
        for what in ("one", "list of 20"):
            ratios = [medians[what, "service", n] / medians[what, other, n] for n in sizes]
            line = f"{what}: service / {other}"
            print(f"{line:44}" + "".join(f"{ratio:17.2f}" for ratio in ratios))
    for what in ("one", "list of 20"):
        growth = medians[what, "service", sizes[0]] / medians[what, "service", sizes[-1]]
        print(f"{what}: cost at {sizes[-1]:,} rows / at {sizes[0]:,}: {growth:.2f}")


if __name__ == "__main__":
    main()
