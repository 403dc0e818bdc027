"""Run Postgres and Valkey from wheels, for one checkout on one machine.

A process that needs them attaches to them: it holds a shared lock on a file. The first one starts
the server process (`servers.py`), which keeps both services running for as long as any process
holds the lock. The kernel releases the locks of a dead process, so a `kill -9` leaves nothing to
clean up.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from config.environment import stop

LONGEST_SOCKET_PATH = 100  # bytes; sun_path has 108 on Linux and 104 on macOS
START_TIMEOUT = 90.0  # seconds; the first start creates the database cluster

_held: dict[Path, int] = {}
"""The descriptor of the lock that this process holds, by data directory."""


@dataclass(frozen=True)
class Services:
    """The services of one checkout: their names, the folder of their data, and their sockets."""

    data: Path
    postgres: bool
    valkey: bool

    @property
    def run(self) -> Path:
        """Return the folder of both sockets: in `data`, or in /tmp if its path is too long."""
        folder = self.data.resolve() / "run"
        if len(os.fsencode(folder / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH:
            return folder
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"systemtasks-{name}"

    @property
    def valkey_socket(self) -> Path:
        return self.run / "valkey.sock"

    def database_url(self) -> str:
        return f"postgresql://systemtasks:{self.password()}@/systemtasks?host={self.run}"

    def broker_url(self) -> str:
        return f"redis+socket://{self.valkey_socket}"

    def password(self) -> str:
        """Return the password of the Postgres role, which is derived from the secret key."""
        return hmac.new(self.secret_key().encode(), b"postgres", hashlib.sha256).hexdigest()

    def secret_key(self) -> str:
        """Return the secret key of this checkout, which the first call stores in `data`."""
        path = self.data / "secret_key"
        with _explained(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                # A link is made whole or not at all, so two processes at once agree on one key.
                with tempfile.NamedTemporaryFile("w", dir=self.data) as file:
                    file.write(secrets.token_urlsafe(48))
                    file.flush()
                    with suppress(FileExistsError):
                        path.hardlink_to(file.name)
            return path.read_text()

    def attach(self) -> None:
        """Keep the services running for as long as this process runs. Start them if necessary.

        End this process with a message if they cannot be started.
        """
        if not (self.postgres or self.valkey) or self.data in _held:
            return
        with _explained(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            with locked(self.data / "start.lock"):
                _held[self.data] = lock(self.data / "holders.lock", fcntl.LOCK_SH)
                if (free := try_lock(self.data / "server.lock")) is not None:
                    os.close(free)
                    self._start()

    def detach(self) -> None:
        """Release the services. If no other process is attached, wait until they have stopped."""
        if (held := _held.pop(self.data, None)) is None:
            return
        os.close(held)
        if (free := try_lock(self.data / "holders.lock")) is not None:
            os.close(free)
            os.close(lock(self.data / "server.lock", fcntl.LOCK_SH))

    def _start(self) -> None:
        command = [sys.executable, "-m", "config.embedded.servers", str(self.data.resolve())]
        command += ["postgres"] * self.postgres + ["valkey"] * self.valkey
        root = Path(__file__).resolve().parent.parent.parent
        try:
            started = subprocess.run(
                command, cwd=root, capture_output=True, text=True, timeout=START_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            stop(f"the embedded services did not start; {self.data}/embedded.log may say why.")
        if started.returncode:
            stop(started.stdout.strip() or started.stderr.strip())


def lock(path: Path, kind: int) -> int:
    """Wait for a lock on the file, and return the descriptor that holds it until it is closed.

    `kind` is an operation of fcntl.flock(). The file is created if it does not exist.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds an exclusive lock on the file, or None if it is taken."""
    try:
        return lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file for the length of the block."""
    descriptor = lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(data: Path) -> Iterator[None]:
    """End the process with a sentence if the block raises OSError."""
    try:
        yield
    except OSError as error:
        stop(f"DATA_DIR is {data}, and {error.filename or 'it'}: {error.strerror}.")
