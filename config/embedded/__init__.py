"""Postgres and Valkey from wheels, for one checkout on one machine.

Every process that needs them attaches: it holds a shared lock on one file. The first to attach
starts the server process (`servers.py`), which keeps both running until nobody holds that lock
any more. The kernel drops a dead process's locks, so a `kill -9` leaves nothing to clean up.
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

LONGEST_SOCKET_PATH = 100  # sun_path takes 108 bytes on Linux and 104 on macOS
START_TIMEOUT = 90.0  # seconds; a first start makes the database cluster

_held: dict[Path, int] = {}


@dataclass(frozen=True)
class Services:
    """Which services run here, and where they keep their data and listen."""

    data: Path
    postgres: bool
    valkey: bool

    @property
    def run(self) -> Path:
        """The folder of both sockets: below `data`, or where that path is too long, in /tmp."""
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
        """The password of the Postgres role, derived from the secret key."""
        return hmac.new(self.secret_key().encode(), b"postgres", hashlib.sha256).hexdigest()

    def secret_key(self) -> str:
        """A secret key of this checkout's own, made at the first call and kept in `data`."""
        path = self.data / "secret_key"
        with _explained(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                # Linked into place whole, so that two first starts at once agree on one key.
                with tempfile.NamedTemporaryFile("w", dir=self.data) as file:
                    file.write(secrets.token_urlsafe(48))
                    file.flush()
                    with suppress(FileExistsError):
                        path.hardlink_to(file.name)
            return path.read_text()

    def attach(self) -> None:
        """Have the services run while this process does; ends the process if they cannot."""
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
        """Let go of the services, and if nobody else holds them, wait until they have stopped."""
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
    """A descriptor that holds a lock of this kind on the file; waits for it, and makes the file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the file alone, or None where somebody else holds it."""
    try:
        return lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file alone."""
    descriptor = lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        stop(f"DATA_DIR is {data}, and {error.filename or 'it'}: {error.strerror}.")
