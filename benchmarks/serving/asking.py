"""Measure with `wrk` how many requests a server answers, and how much processor time it takes."""

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import psutil

from benchmarks.serving.stacks import Server

CONNECTIONS = 8

Headers = dict[str, str]


@dataclass(frozen=True)
class Figures:
    """The figures of one measurement."""

    rate: float
    """Responses a second."""
    server: float
    """Processor time of the server for a response, in microseconds."""
    postgres: float
    """Processor time of Postgres for a response, in microseconds."""


def measure(server: Server, path: str, headers: Headers, seconds: int, postgres: int) -> Figures:
    """Request this path for so many seconds. `postgres` is the id of Postgres's main process.

    Raise RuntimeError if a response is neither 2xx nor 3xx.
    """
    # A server that has just started may take longer than wrk asks it for.
    warming = Request(server.url + path, headers=_with_token(server, {}))  # noqa: S310
    with urlopen(warming, timeout=60):  # noqa: S310
        before = _used(server.process), _used(postgres)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    for name, value in _with_token(server, headers).items():
        command += ["-H", f"{name}: {value}"]
    output = subprocess.run(
        [*command, server.url + path], capture_output=True, text=True, check=True
    ).stdout
    after = _used(server.process), _used(postgres)
    number, rate = (
        re.search(pattern, output)
        for pattern in (r"(\d+) requests in", r"Requests/sec:\s+([\d.]+)")
    )
    if "Non-2xx" in output or not number or not rate or not int(number[1]):
        raise RuntimeError(f"{server.stack.name} does not answer {path}:\n{output}")
    costs = [(late - soon) / int(number[1]) * 1e6 for soon, late in zip(before, after, strict=True)]
    return Figures(float(rate[1]), *costs)


def etag(server: Server, path: str) -> str:
    """Return the entity tag of the response to this path."""
    with urlopen(Request(server.url + path, headers=_with_token(server, {}))) as answer:  # noqa: S310
        return str(answer.headers["ETag"])


def body(server: Server, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return the body of the response to this path."""
    with urlopen(Request(server.url + path, headers=_with_token(server, {}))) as answer:  # noqa: S310
        return json.load(answer)


def _with_token(server: Server, headers: Headers) -> Headers:
    token = server.stack.authorization
    return {**headers, "Authorization": token} if token else headers


def _used(process: int) -> float:
    """Return the processor time of this process and all its children, in seconds."""
    try:
        root = psutil.Process(process)
        children = sum(_used(child.pid) for child in root.children())
        own = root.cpu_times()  # last, so that it includes a child that has just ended
    except psutil.NoSuchProcess:
        return 0.0
    return children + own.user + own.system + own.children_user + own.children_system
