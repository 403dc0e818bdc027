"""Compare a run that failed with the last success of its task."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import pgettext

from systemtasks.admin_parts.errors import normalised
from systemtasks.admin_parts.text import duration_text, first_line
from systemtasks.models import TaskRun
from systemtasks.states import Status

RUNS_LIMIT = 1_000
"""The runs before this one among which the last success is looked for."""
ARGUMENTS = 20
"""The arguments that are compared at most."""
LINES = 8
"""The messages that are listed of each run at most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact in which both runs differ, as texts."""

    title: str
    now: str
    before: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The last success before a run, and what was different then."""

    success: TaskRun
    differences: list[Difference]


def compared(run: TaskRun) -> Comparison | None:
    """Return the comparison of a failed run with the last success before it, or None.

    Two queries, which read RUNS_LIMIT rows by their index at most.
    """
    if not run.is_finished or run.status == Status.SUCCESSFUL or run.sort_timestamp is None:
        return None
    before = TaskRun.objects.filter(
        system_task=run.system_task_id, sort_timestamp__lt=run.sort_timestamp
    ).newest_first()
    statuses = before.values_list("pk", "status")[:RUNS_LIMIT]
    found = next((pk for pk, status in statuses if status == Status.SUCCESSFUL), None)
    success = TaskRun.objects.defer("sent_options").filter(pk=found).first() if found else None
    return Comparison(success, [*_differences(run, success)]) if success else None


def _differences(run: TaskRun, success: TaskRun) -> Iterator[Difference]:
    facts = [
        *_arguments(run, success),
        (pgettext("systemtasks", "Worker"), run.worker, success.worker),
        (pgettext("systemtasks", "Queue"), run.queue, success.queue),
    ]
    for title, now, then in facts:
        if now != then:
            yield Difference(title, first_line(now), first_line(then))
    yield Difference(
        pgettext("systemtasks", "Duration"),
        duration_text(run.duration),
        duration_text(success.duration),
    )
    mine, theirs = _lines(run.messages), _lines(success.messages)
    now, then = _only(mine, theirs), _only(theirs, mine)
    if now or then:
        yield Difference(pgettext("systemtasks", "Messages of one of them alone"), now, then)


def _arguments(run: TaskRun, success: TaskRun) -> list[tuple[str, str, str]]:
    """Return each argument as text, by its place or its name, as it was in both runs."""
    now, then = _by_name(run), _by_name(success)
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return [(name, now.get(name, ""), then.get(name, "")) for name in names[:ARGUMENTS]]


def _by_name(run: TaskRun) -> dict[str, str]:
    args, kwargs = run.args, run.kwargs
    values: dict[str, Any] = {}
    if isinstance(args, list):
        values |= {f"args[{index}]": value for index, value in enumerate(args)}
    if isinstance(kwargs, dict):
        values |= {str(name): value for name, value in kwargs.items()}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def _lines(messages: Iterable[Any]) -> dict[str, str]:
    """Return the messages by their text without numbers and ids, each with its level."""
    lines: dict[str, str] = {}
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            line = f"{message.get('log_level', '')}: {message.get('event', '')}"
            lines.setdefault(normalised(line), line.partition("\n")[0][:200])
    return lines


def _only(lines: dict[str, str], others: dict[str, str]) -> str:
    found = [line for key, line in lines.items() if key not in others]
    return "\n".join([*found[:LINES], *(["…"] if len(found) > LINES else [])])
