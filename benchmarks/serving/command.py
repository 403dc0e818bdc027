"""Compare the speed of the API with that of other stacks, with the same rows. This needs `wrk`."""

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.core.management import call_command
from django.db import connection

from benchmarks.serving import asking, rows, stacks
from benchmarks.serving.asking import Figures, Headers
from benchmarks.serving.stacks import BARE, CONVENTIONAL, DEFAULTS, LIMIT, SERVICE, Server
from benchmarks.table import as_text, spread
from systemtasks.models import SystemTask

TASKS = "/api/v3/events/system_tasks/"
RUNS = "/api/v3/events/task_runs/"
PAGE_SIZE = 20
COMPARED = (SERVICE, CONVENTIONAL, DEFAULTS, LIMIT)

HEADER = (
    "",
    "responses/s, median",
    "lowest to highest",
    "service / this",
    "CPU µs: server",
    "CPU µs: Postgres",
)


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    warm_up: int
    """The number of rounds before those. Their figures are left out."""
    seconds: int
    """The length of each measurement."""
    tasks: tuple[int, ...]
    """The numbers of rows, in growing order. Each is measured."""
    page: int
    """The number of the page of runs that is compared with the first one."""


FULL = Scale(rounds=5, warm_up=1, seconds=2, tasks=(1_000, 1_000_000), page=10_000)
QUICK = Scale(rounds=1, warm_up=0, seconds=1, tasks=(100,), page=3)


@dataclass(frozen=True)
class Question:
    """A path that is requested from some of the stacks."""

    name: str
    path: str
    asked: tuple[str, ...]
    unchanged: bool = False
    """True if the request has the entity tag, so that the response is 304."""


Measured = dict[tuple[str, str], list[Figures]]
"""The figures by the names of the question and the stack."""


def main(*words: str) -> None:
    scale = _scale(words)
    if not shutil.which("wrk"):
        sys.exit("This needs wrk: apt-get install wrk")
    settings.EMBEDDED.attach()
    try:
        call_command("migrate", verbosity=0)
        measured: Measured = {}
        with stacks.serving(stacks.prepare()) as servers:
            _measure(servers, scale, measured)
        print(as_text(HEADER, list(_lines(measured))))
    finally:
        connection.close()
        settings.EMBEDDED.detach()


def _scale(words: tuple[str, ...]) -> Scale:
    parser = argparse.ArgumentParser(prog="benchmarks/run serving", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test; its figures mean nothing"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="for each measurement")
    parser.add_argument("--tasks", type=int, nargs="+", help="how many rows, in growing order")
    given = parser.parse_args(words)
    scale = QUICK if given.quick else FULL
    chosen = {name: value for name in ("rounds", "seconds") if (value := getattr(given, name))}
    tasks = tuple(given.tasks or scale.tasks)
    return Scale(**{**vars(scale), **chosen, "tasks": tasks})


def _measure(servers: list[Server], scale: Scale, measured: Measured) -> None:
    """Measure every question, for each number of tasks."""
    filled = 0
    for number in scale.tasks:
        rows.add_tasks(filled + 1, number)
        filled = number
        _ask_in_turns(servers, list(_questions(number)), scale, measured)
    rows.add_runs((scale.page + 1) * PAGE_SIZE)
    _ask_in_turns(servers, list(_pages(servers[0], scale.page)), scale, measured)


def _ask_in_turns(
    servers: list[Server], questions: list[Question], scale: Scale, measured: Measured
) -> None:
    for turn in range(-scale.warm_up, scale.rounds):
        for question in questions:
            _say(f"round {turn + 1} of {scale.rounds}: {question.name}")
            for server in servers:
                if server.stack.name in question.asked:
                    figures = _ask(server, question, scale.seconds)
                    if turn >= 0:
                        key = question.name, server.stack.name
                        measured.setdefault(key, []).append(figures)


def _questions(number: int) -> Iterator[Question]:
    """Yield the questions for this number of tasks."""
    one = f"{TASKS}{SystemTask.objects.latest('start_timestamp').uuid}/"
    asked = (("one task", one, (*COMPARED, BARE)), ("20 tasks", TASKS, COMPARED))
    for what, path, stacks_asked in asked:
        yield Question(f"{what} of {number:,}", path, stacks_asked)
        yield Question(f"{what} of {number:,}, 304", path, (SERVICE,), unchanged=True)


def _pages(server: Server, page: int) -> Iterator[Question]:
    """Yield questions for the first page of runs and, by `after`, for the second and a late one."""
    yield Question("20 runs, page 1", RUNS, (SERVICE,))
    for number in (2, page):
        after = asking.body(server, f"{RUNS}?page={number - 1}")["pagination"]["after"]
        yield Question(f"20 runs, page {number:,}", f"{RUNS}?after={after}", (SERVICE,))


def _ask(server: Server, question: Question, seconds: int) -> Figures:
    headers: Headers = {}
    if question.unchanged:
        headers["If-None-Match"] = asking.etag(server, question.path)
    postgres = int((settings.EMBEDDED.data / "postgres/postmaster.pid").read_text().split()[0])
    return asking.measure(server, question.path, headers, seconds, postgres)


def _lines(measured: Measured) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table."""
    for (question, stack), figures in measured.items():
        ours = _median(figures.rate for figures in measured[question, SERVICE])
        rate = _median(each.rate for each in figures)
        yield (
            f"{question}: {stack}",
            *spread([each.rate for each in figures], "", digits=0),
            "" if stack == SERVICE else f"{ours / rate:.2f}",
            f"{_median(each.server for each in figures):,.0f}",
            f"{_median(each.postgres for each in figures):,.0f}",
        )


def _median(values: Iterator[float]) -> float:
    return statistics.median(list(values))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
