"""Start the processes of a mode, and measure the processor time that each has used."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.recording import modes, tasks
from benchmarks.recording.modes import MODULES, Mode

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [sys.executable, "-m", "benchmarks.launch"]
CHILDREN = 2
TIMEOUT = 600.0  # seconds, for everything else
STALLED_AFTER = 30.0  # seconds in which no task ends
POLL_INTERVAL = 0.05

Usage = dict[str, float]
"""The seconds of processor time so far, by process."""


def environment(mode: Mode, folder: Path) -> dict[str, str]:
    """Return the environment of a process of this mode. Tasks write their ends to `folder`."""
    return {**os.environ, modes.VARIABLE: mode.name, tasks.VARIABLE: str(folder)}


def run(module: str, *words: str, mode: Mode, **variables: str) -> str:
    """Run this module in this mode, and return its output. Raise an error if it fails."""
    return subprocess.run(
        [*LAUNCH, f"{MODULES}.{module}", *words],
        cwd=ROOT,
        env={**os.environ, modes.VARIABLE: mode.name, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT,
    ).stdout


def run_json(module: str, *words: str, mode: Mode, **variables: str) -> Any:  # noqa: ANN401
    """Run this module in this mode, and return the JSON in the last line of its output."""
    return json.loads(run(module, *words, mode=mode, **variables).splitlines()[-1])


def wait_for_ends(number: int, folder: Path, process: psutil.Process) -> None:
    """Wait until this many tasks have ended. Raise RuntimeError if the worker has stopped."""
    last, since = -1, time.monotonic()
    while (ended := tasks.count_ends(folder)) < number:
        if ended > last:
            last, since = ended, time.monotonic()
        if process.status() == psutil.STATUS_ZOMBIE or time.monotonic() - since > STALLED_AFTER:
            raise RuntimeError(f"the worker stops after {ended} tasks")
        time.sleep(POLL_INTERVAL)


@contextmanager
def worker(mode: Mode, folder: Path) -> Iterator[psutil.Process]:
    """Run a worker of this mode until the block ends. It may then finish its tasks."""
    command = [sys.executable, "-m", "celery", "--app", "config", "worker"]
    command += [
        "--include",
        ",".join((f"{MODULES}.tasks", *mode.modules)),
        "--concurrency",
        str(CHILDREN),
    ]
    command += ["--loglevel", "INFO", *mode.options]
    with (
        (folder.parent / "worker.log").open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment(mode, folder), stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield psutil.Process(process.pid)
            process.terminate()
            process.wait(TIMEOUT)
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children():
                    child.kill()
                process.kill()


@contextmanager
def event_reader(mode: Mode, seen: list[int]) -> Iterator[psutil.Process | None]:
    """Run the process that reads events, if the mode has one, until the block ends.

    Then append the number of tasks in its events to `seen`.
    """
    if not mode.read_events:
        yield None
        return
    with subprocess.Popen(
        [*LAUNCH, f"{MODULES}.read_events"],
        cwd=ROOT,
        env={**os.environ, modes.VARIABLE: mode.name},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            seen.append(int(process.stdout.read()))


def usage(groups: dict[str, psutil.Process | None]) -> Usage:
    """Return the processor time of these processes. `children` are those of the worker."""
    worker = groups["main process"]
    assert worker
    used = {name: _own_seconds(process) for name, process in groups.items() if process}
    used["children"] = sum(map(_own_seconds, worker.children()))
    return used


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    seconds = times.user + times.system
    if process.name() == "postgres":
        # Each connection has a process. The main one counts those that have ended as its children.
        seconds += times.children_user + times.children_system
        seconds += sum(map(_own_seconds, process.children()))
    return seconds
