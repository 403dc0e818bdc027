"""Start a PgBouncer for a test."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import environment
from config.embedded.servers import Account
from tests import processes
from tests.config.roles import PASSWORD
from tests.waiting import eventually


@contextmanager
def pgbouncer(database: str, folder: Path, *lines: str) -> Iterator[str]:
    """Yield the URL of the database behind a PgBouncer in transaction mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("There is no pgbouncer on PATH")
    given = environment.database(database)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(
        "\n".join(
            [
                "[databases]",
                f"{given['NAME']} = host={given['HOST']} user={given['USER']} "
                f"password={given['PASSWORD']}",
                "[pgbouncer]",
                *("listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir ="),
                *("auth_type = any", "pool_mode = transaction", *lines),
            ]
        )
    )
    # As Postgres, since it refuses to be root, and needs its socket.
    command = Account().command(Path(program), folder, Path(given["HOST"]))
    command += [str(folder / "pgbouncer.ini")]
    process = processes.start(command, folder / "pgbouncer.log", os.environ)
    url = f"postgresql://{given['USER']}:{PASSWORD}@127.0.0.1:{port}/{given['NAME']}?"

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert eventually(answers), (folder / "pgbouncer.log").read_text()
        yield url
    finally:
        processes.stop(process)
