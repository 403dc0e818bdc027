"""Draw the executions of one Celery id on one scale of time: sent, waited, ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import pgettext

from systemtasks.admin_parts.text import duration_text
from systemtasks.models import TaskRun
from systemtasks.states import State

WIDTH = 1000
"""The width of the drawing, in units of its own."""
NARROWEST = 4
"""The least width of a part, so that it can be seen."""
ROWS = 20
"""The executions that are drawn at most, the newest ones."""
COLUMNS = ("sent_timestamp", "eta_timestamp", "start_timestamp", "finish_timestamp")
"""The times that it needs of each run."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar, from `x` on."""

    kind: str
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Row:
    """An execution: the parts of its bar, and what they say in words."""

    run: TaskRun
    parts: list[Part]
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The executions, oldest first, with the times at both ends of the scale."""

    rows: list[Row]
    start: datetime
    end: datetime
    is_cut: bool


def timeline(runs: Sequence[TaskRun]) -> Timeline | None:
    """Return the drawing of runs, which are given newest first. Return None if none has a time."""
    now = timezone.now()
    spans = [(run, _spans(run, now)) for run in runs[:ROWS]]
    spans = [(run, parts) for run, parts in spans if parts]
    if not spans:
        return None
    start = min(first for _, parts in spans for _, first, _ in parts)
    end = max(last for _, parts in spans for _, _, last in parts)
    spans.sort(key=lambda one: (one[1][0][1], one[0].attempt, one[0].number))
    rows = [
        Row(
            run, [_part(kind, first, last, start, end) for kind, first, last in parts], _text(parts)
        )
        for run, parts in spans
    ]
    return Timeline(rows, start, end, len(runs) > ROWS)


def _spans(run: TaskRun, now: datetime) -> list[tuple[str, datetime, datetime]]:
    """Return what happened to a run, each a kind and two times."""
    sent, start, end = run.sent_timestamp, run.start_timestamp, run.finish_timestamp
    over = end or now
    if run.number > 1:
        sent = None  # a further execution of its message, which was sent for the first one
    spans = []
    if sent is not None:
        until = start or over
        due = min(max(run.eta_timestamp or sent, sent), max(until, sent))
        if due > sent:
            spans.append(("held", sent, due))
        # The clocks of two hosts may differ.
        spans.append(("wait", due, max(until, due)))
    if start is not None:
        kind = str(run.status) if run.is_finished else str(State.RUNNING)
        spans.append((kind, start, max(over, start)))
    return spans


def _part(kind: str, first: datetime, last: datetime, start: datetime, end: datetime) -> Part:
    whole = max(end - start, timedelta(microseconds=1))
    x = min(round((first - start) / whole * WIDTH), WIDTH - NARROWEST)
    return Part(kind, x, max(round((last - first) / whole * WIDTH), NARROWEST))


def _text(parts: list[tuple[str, datetime, datetime]]) -> str:
    words = {
        "held": pgettext("systemtasks", "held until due for {}"),
        "wait": pgettext("systemtasks", "waited {}"),
        State.RUNNING: pgettext("systemtasks", "running for {}"),
    }
    ran = pgettext("systemtasks", "ran {}")
    return ", ".join(
        words.get(kind, ran).format(duration_text((last - first).total_seconds()))
        for kind, first, last in parts
    )
