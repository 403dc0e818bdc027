"""Measure what millions of runs cost, each time against a few thousand in the same call.

It prints Markdown: docs/scale.md has it.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django.db import connection

from benchmarks.scale import databases, fill, plans, questions, retention, size, writing
from benchmarks.scale.asking import LIMIT, Asker, Figures, explain
from benchmarks.scale.databases import Database, use
from benchmarks.scale.questions import Question, Values
from benchmarks.table import as_text

COUNT = 10_000_000
BASE = 10_000
SLOWEST = 10
PARTS = ("bytes", "questions", "writing", "retention")


@dataclass(frozen=True)
class Answer:
    """The figures of a question in both databases: in the list's own order and the slowest one."""

    question: Question
    small: Figures
    large: Figures
    repeated: Figures
    """The figures of the large database if the plan of a list is kept."""
    order: str = ""
    """The slowest order, if it is not the list's own."""
    small_in_order: Figures | None = None
    large_in_order: Figures | None = None

    @property
    def worst(self) -> Figures:
        return self.large_in_order or self.large


def main(*words: str) -> None:
    given = _options(words)
    empty, small, large = (
        Database("empty", 0),
        Database("small", BASE),
        Database("large", given.count, given.tasks),
    )
    settings.EMBEDDED.attach()
    try:
        made = databases.prepare([empty, small, large])
        for database in made:
            use(database)
            if database is empty:
                continue
            seconds = fill.fill(database, with_statistics=not given.no_statistics)
            databases.keep(database)
            _say(f"{database.runs:,} runs are filled in {seconds:.0f} s")
        if "bytes" in given.parts:
            _print(
                "Bytes a run", ("", f"{BASE:,} runs", f"{large.runs:,} runs"), _sizes(small, large)
            )
        if "questions" in given.parts:
            answers = list(_ask(small, large, given.only, few_orders=given.few_orders))
            header = (
                "ms of Postgres's processor time",
                f"{BASE:,} runs",
                f"{large.runs:,} runs",
                "ratio",
                "repeated",
                "slowest order",
                f"{BASE:,} runs",
                f"{large.runs:,} runs",
            )
            for group in dict.fromkeys(answer.question.group for answer in answers):
                of_group = [each for each in answers if each.question.group == group]
                _print(group, header, [_cells(answer) for answer in of_group])
            _print_slowest(answers, given.slowest)
        if "writing" in given.parts:
            _print_writing(empty, large, given.tasks)
        if "retention" in given.parts:
            _print_retention(large)
    finally:
        databases.close()
        connection.close()
        settings.EMBEDDED.detach()


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run scale", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="runs in the large database")
    parser.add_argument("--tasks", type=int, default=0, help="more tasks there, without runs")
    parser.add_argument(
        "--parts", nargs="+", choices=(*PARTS, "none"), default=PARTS, help="`none` only fills"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="questions with one of these in group: name"
    )
    parser.add_argument(
        "--few-orders", action="store_true", help="all orders only of the lists without a filter"
    )
    parser.add_argument("--no-statistics", action="store_true", help="do not fold any")
    parser.add_argument("--slowest", type=int, default=SLOWEST, help="plans that are printed")
    return parser.parse_args(words)


def _sizes(small: Database, large: Database) -> list[tuple[str, ...]]:
    sizes = []
    for database in (small, large):
        use(database)
        sizes.append(size.bytes_a_run())
    return [(what, *(f"{each.get(what, 0):,.0f}" for each in sizes)) for what in sizes[1]]


def _print_writing(empty: Database, large: Database, tasks: int) -> None:
    lines = []
    for name, into_empty, into_large in writing.measure(empty, large, tasks):
        _say(f"written: {name}")
        both = into_empty, into_large
        ratios = [full.rate / none.rate for none, full in zip(*both, strict=True)]
        rates = [f"{statistics.median(each.rate for each in written):,.0f}" for written in both]
        parts = [
            f"{statistics.median(each.own for each in written):,.0f} + "
            f"{statistics.median(each.postgres for each in written):,.0f}"
            for written in both
        ]
        lines.append((name, *rates, f"{statistics.median(ratios):.2f}", *parts))
    header = (
        "runs a second that a processor writes",
        "empty",
        f"{large.runs:,} runs",
        "ratio",
        "µs a run: writer + Postgres, empty",
        f"{large.runs:,} runs",
    )
    _print("Writing", header, lines)


def _print_retention(large: Database) -> None:
    dropped = retention.drop_a_day(large)
    what = f"seconds to drop {dropped.runs:,} runs, of which {dropped.kept:,} are kept"
    lines = [(what, f"{dropped.seconds:.2f}")]
    for when, batches in (("before it", dropped.before), ("meanwhile", dropped.during)):
        for percent in (50, 99):
            took = retention.percentile(batches, percent)
            lines.append((f"ms of a batch {when}, p{percent}", f"{took:,.0f}"))
    title = f"A day dropped while {retention.RATE} runs a second are written"
    _print(title, ("", ""), lines)


def _ask(
    small: Database, large: Database, only: Sequence[str], *, few_orders: bool
) -> Iterator[Answer]:
    """Ask every question of both databases in turn."""
    askers = [Asker(database) for database in (small, large)]
    asked = []
    for database in (small, large):
        use(database)
        values = Values()
        asked.append([*questions.api_questions(values), *questions.admin_questions(values)])
    for missing in questions.not_asked(asked[0]):
        _say(f"not asked, since questions.py has no value for it: {missing}")
    for of_small, of_large in zip(*asked, strict=True):
        if not any(text in f"{of_small.group}: {of_small.name}" for text in only):
            continue
        if few_orders and of_small.query:
            of_small, of_large = replace(of_small, orders=()), replace(of_large, orders=())
        answer = _answer(askers[0], askers[1], of_small, of_large)
        _say(f"{of_large.group}: {of_large.name}: {answer.worst.cpu:.1f} ms, {answer.worst.url}")
        yield answer


def _answer(small: Asker, large: Asker, of_small: Question, of_large: Question) -> Answer:
    """Ask a question of both databases, in the list's own order and in the slowest other one."""
    small_url, *small_others = of_small.urls()
    large_url, *others = of_large.urls()
    own = small.ask(small_url), large.ask(large_url), large.ask(large_url, keeps_plans=True)
    tried = [large.ask(url, repeats=1).cpu for url in others]
    if not tried or max(tried) <= own[1].cpu:
        return Answer(of_large, *own)
    number = tried.index(max(tried))
    order = " ".join(of_large.orders[number].values())
    worst = small.ask(small_others[number]), large.ask(others[number])
    return Answer(of_large, *own, order, *worst)


def _cells(answer: Answer) -> tuple[str, ...]:
    small, large = answer.small, answer.large
    cells = [answer.question.name, _ms(small), _ms(large), f"{large.cpu / small.cpu:.1f}"]
    cells.append(_ms(answer.repeated))
    if answer.small_in_order and answer.large_in_order:
        cells += [answer.order, _ms(answer.small_in_order), _ms(answer.large_in_order)]
    return (*cells, *[""] * (8 - len(cells)))


def _ms(figures: Figures) -> str:
    if figures.status >= 500:
        return f"over {LIMIT:,} s" if figures.clock > LIMIT * 900 else f"status {figures.status}"
    return f"{figures.cpu:,.1f}" + (f" ({figures.status})" if figures.status >= 400 else "")


def _print_slowest(answers: Sequence[Answer], number: int) -> None:
    """Print the slowest questions with the plan of their slowest statement."""
    figures = [answer.worst for answer in answers]
    figures.sort(key=lambda each: -each.cpu)
    lines = [
        (
            f"`{each.url}`",
            _ms(each),
            f"{each.clock:,.0f}",
            plans.summary(explain(each.slowest, each.database)) if each.slowest else "",
        )
        for each in figures[:number]
    ]
    header = ("", "ms, processor", "ms, clock", "plan of its slowest statement")
    _print("The slowest", header, lines)


def _print(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    print(f"\n## {title}\n\n{as_text(header, lines)}", flush=True)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
