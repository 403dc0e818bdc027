"""Run the whole service on this machine, in one terminal, until Ctrl-C: `make up`.

With WEB_ONLY, for a project that has workers of its own, only the web server is started.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from config import environment
from config.embedded import Services, try_lock
from config.environment import stop, without_url
from config.watchdog import WARM_TIMEOUT, kill_group

HOST = "127.0.0.1"
READY_TIMEOUT = 60.0  # seconds
COLOURS = {"web": 36, "worker": 32, "beat": 35}  # ANSI: cyan, green, magenta
FIRST_TASK = "demo.clean_sessions"


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask this process to end."""


class Stopped(BaseException):
    """Raised when a signal asks this process to end."""


class Signals:
    """Handles the signals: the first one raises Stopped, and later ones are counted."""

    def __init__(self) -> None:
        self.count = 0
        self.raises = True
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.raises:
            self.raises = False
            raise Stopped


@dataclass
class Child:
    """A process of the service, and the thread that prints its output."""

    name: str
    process: "subprocess.Popen[str]"
    printer: threading.Thread

    def kill(self) -> None:
        """Kill the process and all processes that it has started."""
        kill_group(self.process.pid)
        self.process.wait()
        self.printer.join(timeout=2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port: int = parser.parse_args().port
    with _watchdog() as watchdog:
        failed = _run(port, watchdog)
    sys.exit(1 if failed else 0)


def _watchdog() -> "subprocess.Popen[str]":
    """Start the process that ends the service's processes if this one is killed.

    It reads their ids from its standard input; see config/watchdog.py.
    """
    command = [sys.executable, "-m", "config.watchdog"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)


def _run(port: int, watchdog: "subprocess.Popen[str]") -> bool:
    """Run the service until Ctrl-C, or until one of its processes ends; return True if one did."""
    signals = Signals()
    data = Path(environment.text("DATA_DIR", str(Path.cwd() / "var")))
    children: list[Child] = []
    failed = False
    try:
        _claim(data, port)
        _prepare(data)
        for name, command in _commands(data, port).items():
            children.append(_start(name, command))
            print(children[-1].process.pid, file=watchdog.stdin, flush=True)
        _await_web(children, port)
        print(_welcome(children, port), flush=True)
        failed = _watch(children)
    except Stopped:
        pass
    finally:
        signals.raises = False
        _stop(children, signals)
    return failed


def _claim(data: Path, port: int) -> None:
    """Make sure that no other `make up` uses the data directory, and nothing uses the port."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = try_lock(data / "up.lock")  # held until this process ends
    except OSError as error:
        stop(f"there is no permission to write to {data} ({error.strerror}).")
    if lock is None:
        stop(f"it already runs here (`make up`, process {(data / 'up.pid').read_text()}).")
    (data / "up.pid").write_text(str(os.getpid()))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            stop(f"port {port} is in use or not allowed; choose another: make up PORT=8001")


def _prepare(data: Path) -> None:
    """Set the environment for a single machine, start what it lacks, and migrate the database."""
    services = Services(data, postgres=False, valkey=False)
    for name, value in {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATA_DIR": str(data.resolve()),
        "DEMO_TASKS": "false" if environment.boolean("WEB_ONLY", default=False) else "true",
        "HTTPS": "false",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "WEB_WORKERS": "1",
        # A client that sends nothing more must not outlast the stop, which allows WARM_TIMEOUT.
        "WEB_HEADER_SECONDS": "5",
        "WEB_BODY_SECONDS": "5",
        "SECRET_KEY": services.secret_key(),
        # In a container, Celery would print five lines about the user root at each start.
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
    }.items():
        os.environ.setdefault(name, value)

    import django
    from django.conf import settings
    from django.core.management import CommandError, call_command
    from django.db import OperationalError
    from kombu import Connection

    settings.EMBEDDED.attach()
    django.setup()
    try:
        with Connection(settings.CELERY_BROKER_URL, connect_timeout=5) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0)
    except Exception as error:  # noqa: BLE001 - each transport raises other errors
        reason = without_url(str(error), settings.CELERY_BROKER_URL)
        stop(f"the broker cannot be used: {reason}")
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except (OperationalError, CommandError) as error:
        reason = without_url(str(error), environment.text("DATABASE_URL"))
        stop(f"the database cannot be used: {reason}")


def _commands(data: Path, port: int) -> dict[str, list[str]]:
    from django.conf import settings

    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--quiet", "--app", "config"]
    web = {
        "web": [
            *python,
            "config.web",
            "--host",
            HOST,
            "--port",
            str(port),
            "--log-level",
            "warning",
        ],
    }
    if settings.WEB_ONLY:
        return web
    return web | {
        "worker": [
            *celery,
            "worker",
            "--concurrency",
            "2",
            "--loglevel",
            "INFO",
            "--hostname",
            "systemtasks@%h",
        ],
        "beat": [
            *celery,
            "beat",
            "--loglevel",
            "INFO",
            "--pidfile",
            "",
            "--schedule",
            str(data / "celerybeat-schedule"),
        ],
    }


def _start(name: str, command: list[str]) -> Child:
    # A session of its own keeps Ctrl-C from the child: this process ends it in the right order.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    printer = threading.Thread(target=_print_lines, args=(name, process.stdout), daemon=True)
    printer.start()
    return Child(name, process, printer)


def _print_lines(name: str, lines: IO[str]) -> None:
    label = _coloured(f"{name:<6} │", COLOURS[name])
    for line in lines:
        if line.strip():
            print(label, line, end="", flush=True)


def _coloured(text: str, colour: int) -> str:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def _await(children: list[Child], condition: Callable[[], bool], failure: str) -> None:
    """Wait until the condition holds; stop if a child ends, or with `failure` after a while."""
    deadline = time.monotonic() + READY_TIMEOUT
    while not condition():
        for child in children:
            if (code := child.process.poll()) is not None:
                stop(f"{child.name} ended with exit code {code}; its lines above may say why.")
        if time.monotonic() > deadline:
            stop(f"{failure} within {READY_TIMEOUT:.0f} seconds.")
        time.sleep(0.1)


def _await_web(children: list[Child], port: int) -> None:
    def listening() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex((HOST, port)) == 0

    _await(children, listening, f"nothing listened on port {port}")


def _welcome(children: list[Child], port: int) -> str:
    """Return the text that says how to use the service.

    At the very first start, make a superuser and a token, and show their secrets in it.
    """
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.db import connection, transaction
    from knox.models import get_token_model

    from systemtasks.ids import system_task_uuid
    from systemtasks.models import TaskRun
    from systemtasks.states import State

    url = f"http://{HOST}:{port}"
    path = "/api/v3/events/system_tasks/"
    if settings.DEMO_TASKS:
        from config import demo
        from config.celery import app

        for name in demo.SCHEDULE:
            app.send_task(name)
        first = system_task_uuid(FIRST_TASK)
        # The task's own row is not proof: it is written before any of its runs has ended.
        recorded = TaskRun.objects.filter(system_task=first, state=State.SUCCESS).exists
        _await(children, recorded, "no task was recorded")
        path += f"{first}/"

    login = f"your own account, or a new one: {_manage()} createsuperuser"
    token = "$TOKEN"  # noqa: S105 - a placeholder
    hint = f"(make a token: {_manage()} create_token admin)"
    users = get_user_model()._default_manager
    with transaction.atomic():
        if not users.filter(is_superuser=True).exists():
            password = secrets.token_urlsafe(12)
            admin = users.create_superuser("admin", password=password)
            _, token = get_token_model().objects.create(user=admin, expiry=None)
            login = f"admin, password {password}"
            hint = "(the password and the token are shown this once)"
    connection.close()
    return "\n".join(
        (
            "",
            _coloured(f"System Tasks runs at {url}", 1),
            f"  Admin     {url}/admin/   {login}",
            f"  API       {url}/api/v3/",
            f"  One task  curl -H 'Authorization: Bearer {token}' {url}{path}",
            f"            {hint}",
            "  Ctrl-C stops everything.",
            "",
        )
    )


def _manage() -> str:
    """Return the command that runs manage.py in another terminal, with the same database."""
    from django.conf import settings

    command = ".venv/bin/python manage.py"
    if settings.EMBEDDED.postgres:
        return command
    # DATABASE_URL and BROKER_URL are left out: they may hold a password.
    return f"SECRET_KEY=$(cat var/secret_key) ALLOWED_HOSTS=localhost {command}"


def _watch(children: list[Child]) -> bool:
    """Wait until a child ends, and return True. A child that ends is a failure."""
    while True:
        for child in children:
            if (code := child.process.poll()) is not None:
                print(f"{child.name} ended with exit code {code}: stopping.", file=sys.stderr)
                return True
        time.sleep(0.2)


def _stop(children: list[Child], signals: Signals) -> None:
    """End the children, wait for tasks that still run, and detach from the embedded services.

    Kill what has not ended after WARM_TIMEOUT, or when another signal comes.
    """
    deadline, count = time.monotonic() + WARM_TIMEOUT, signals.count
    for child in children:
        child.process.terminate()
    while any(child.process.poll() is None for child in children):
        if time.monotonic() > deadline or signals.count > count:
            print("Not everything ended by itself; it is killed now.", file=sys.stderr)
            break
        time.sleep(0.05)
    for child in children:
        child.kill()
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        from django.conf import settings

        settings.EMBEDDED.detach()


if __name__ == "__main__":
    main()
