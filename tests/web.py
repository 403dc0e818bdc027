"""The web server, as a process of its own, over the test database and broker."""

import socket
import sys
from pathlib import Path

from tests import processes
from tests.waiting import eventually
from tests.workers import environment


class Web:
    """A running Granian, as `make up` starts it; a context manager that stops it."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> "Web":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(port)]
        command += ["--blocking-threads", "4", "--no-ws", "config.wsgi:application"]
        self.process = processes.start(command, self.log, environment())

        def listening() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        assert eventually(listening), self.log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(self.process)
