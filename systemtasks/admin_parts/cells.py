"""Pieces of HTML that lists and pages share. All values from tasks are escaped."""

import re
from datetime import UTC, datetime

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import pgettext

from systemtasks.admin_parts.text import NOTHING, time_text
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State


def badge(row: SystemTask | TaskRun) -> SafeString:
    """Return the status as a coloured word, or the state of a run that has not ended."""
    if isinstance(row, TaskRun) and not row.is_finished:
        kind, text = row.state, row.get_state_display()
    else:
        kind, text = row.status, row.get_status_display()
    return word(kind, text)


def word(kind: str, text: str) -> SafeString:
    """Return a coloured word."""
    return format_html('<span class="st-badge st-is-{}">{}</span>', kind, text)


def has_run(task: SystemTask) -> bool:
    """Return True if a run of the task has ended. One that is only known has the time of that."""
    return task.sort_timestamp is not None


def ago(moment: datetime | None) -> SafeString | str:
    """Return a text such as `3 minutes ago`, with the exact time as its title."""
    if moment is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.astimezone(UTC).isoformat(),
        time_text(moment),
        naturaltime(moment),
    )


def started(run: TaskRun) -> SafeString | str:
    """Return when the run started, or when it was sent: `sent 3 days ago, never started`."""
    if run.start_timestamp is not None or run.sent_timestamp is None:
        return ago(run.start_timestamp)
    if run.state == State.LOST:
        text = pgettext("systemtasks", "sent {}, never started")
    else:
        text = pgettext("systemtasks", "sent {}")
    return format_html(text, ago(run.sent_timestamp))


def two_lines(first: str, second: str) -> SafeString:
    """Return a text with a less prominent one below it."""
    if not second:
        return format_html('<span class="st-first">{}</span>', first)
    return format_html(
        '<span class="st-first">{}</span><span class="st-second">{}</span>', first, second
    )


def breakable(name: str) -> SafeString:
    """Return a dotted name that may be broken after its dots, colons and underscores."""
    parts = re.findall(r"[^._:]*[._:]|[^._:]+", name)
    return format_html_join(SafeString("<wbr>"), "{}", ((part,) for part in parts))


def which_one(run: TaskRun) -> str:
    """Return which attempt and execution this is, or "" for the first ones of both."""
    texts = [pgettext("systemtasks", "attempt %d") % run.attempt] if run.attempt > 1 else []
    texts += [pgettext("systemtasks", "execution %d") % run.number] if run.number > 1 else []
    return ", ".join(texts)
