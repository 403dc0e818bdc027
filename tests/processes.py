"""Start processes for tests. Each is the leader of its own process group."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start it in this checkout. All its output is in the log."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end. If it does not, kill it, and fail the test."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        finally:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill all processes of its group that still run."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
