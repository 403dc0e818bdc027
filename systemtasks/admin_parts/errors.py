"""Group errors that differ in numbers, ids and addresses alone."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models.functions import Left
from django.utils import timezone
from django.utils.translation import pgettext

from systemtasks.admin_parts.text import first_line, number_text
from systemtasks.models import SystemTask, TaskRun

DAYS = 30
RUNS_LIMIT = 10_000
"""The newest runs of a task that are looked at."""
ERRORS_LIMIT = 2_000
"""The errors among them that are read."""
LENGTH = 300
"""The characters of an error that are compared."""
GROUPS = 10
"""The groups that a page shows."""

# In this order: what is longer and more exact first.
VARYING = re.compile(
    r"""
    \b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b       # a UUID
    | \b0x[0-9a-f]+\b                                      # an address in memory
    | \b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b                     # an e-mail address
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b                 # IPv4, with or without a port
    | (?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![\w:])      # IPv6
    | \b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b             # a digest, or another id
    | (?<![A-Za-z_])[+-]?\d+(?:[.,:]\d+)*                  # a number, or a time
    """,
    re.VERBOSE | re.IGNORECASE,
)


def normalised(exception: str) -> str:
    """Return the first line of an exception, without what differs from run to run."""
    return VARYING.sub("…", first_line(exception))


@dataclass(slots=True)
class ErrorGroup:
    """Errors of one task that are the same but for what VARYING finds."""

    text: str
    """The text that is common to them."""
    since: datetime
    """When the first one of them started."""
    newest: UUID
    """The newest run."""
    newest_start: datetime
    example: str
    """The error of the newest run."""
    runs: list[UUID]
    """All of them, the newest first."""

    @property
    def count(self) -> int:
        """Return the number of the runs."""
        return len(self.runs)


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of a task in the past DAYS, the most frequent ones first."""

    groups: list[ErrorGroup]
    bound: str = ""
    """The runs or errors that were looked at, in words, if the task has had more."""

    @property
    def shown(self) -> list[ErrorGroup]:
        """Return the groups that a page shows."""
        return self.groups[:GROUPS]

    def like(self, exception: str) -> ErrorGroup | None:
        """Return the group of an exception, or None."""
        text = normalised(exception)
        return next((group for group in self.groups if group.text == text), None)


def errors_of(task: SystemTask | UUID) -> Errors:
    """Return the errors of a task's newest runs.

    Two queries, which read RUNS_LIMIT rows by their index at most, however many runs there are.
    """
    start = timezone.now() - timedelta(days=DAYS)
    newest = TaskRun.objects.filter(system_task=task, sort_timestamp__gte=start).newest_first()
    # The time before which no run is looked at. It is read from the index alone.
    before = newest.values_list("sort_timestamp", flat=True)[RUNS_LIMIT : RUNS_LIMIT + 1]
    bound = next(iter(before), None)
    if bound is not None:
        newest = newest.filter(sort_timestamp__gt=bound)
    failed = newest.exclude(exception="").values_list(
        "pk", "sort_timestamp", Left("exception", LENGTH + 1)
    )
    rows = [*failed[: ERRORS_LIMIT + 1]]
    groups: dict[str, ErrorGroup] = {}
    for pk, moment, text in rows[:ERRORS_LIMIT]:
        key = normalised(text)
        if group := groups.get(key):
            group.runs.append(pk)
            group.since = moment  # they come newest first
        else:
            groups[key] = ErrorGroup(key, moment, pk, moment, first_line(text), [pk])
    ordered = sorted(groups.values(), key=lambda group: -group.count)
    return Errors(ordered, _bound_text(len(rows) > ERRORS_LIMIT, bound is not None))


def _bound_text(are_more_errors: bool, are_more_runs: bool) -> str:
    if are_more_errors:
        return pgettext("systemtasks", "among its newest {} errors").format(
            number_text(ERRORS_LIMIT)
        )
    if are_more_runs:
        return pgettext("systemtasks", "among its newest {} runs").format(number_text(RUNS_LIMIT))
    return ""


def group_of(run: TaskRun) -> tuple[ErrorGroup | None, str]:
    """Return the errors of the run's task that are the same as its own, and the `Errors.bound`."""
    if not run.exception:
        return None, ""
    errors = errors_of(run.system_task_id)
    return errors.like(run.exception), errors.bound
