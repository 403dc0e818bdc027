"""The web server, as a process of its own, over the test database and broker."""

import socket
import sys
from pathlib import Path

from tests import processes
from tests.waiting import eventually
from tests.workers import environment


class Web:
    """A running `config.web`, as `make up` starts it; a context manager that stops it.

    More variables of its environment may be given by name.
    """

    def __init__(self, log: Path, **variables: str) -> None:
        self.log = log
        self._variables = variables

    def __enter__(self) -> "Web":
        self.start()
        try:
            assert eventually(self.is_listening), self.log.read_text()
        except BaseException:  # Ctrl-C as well
            processes.kill(self.process)
            raise
        return self

    def start(self) -> None:
        """Start it, and do not wait until it listens."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "config.web", "--port", str(self.port)]
        variables = {"WEB_WORKERS": "1", **self._variables}
        self.process = processes.start(command, self.log, {**environment(), **variables})

    def is_listening(self) -> bool:
        """Return True if it accepts connections."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        processes.stop(self.process)
