"""Format rows for people, as plain text. The caller must escape it."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import dateformat, timezone
from django.utils.formats import number_format
from django.utils.translation import pgettext

from systemtasks.runs.values import utc

ERROR_LEVELS = ("critical", "exception", "error")
WARNING_LEVELS = ("warning", "warn")
LEVELS = (*ERROR_LEVELS, *WARNING_LEVELS, "info", "debug")
NOTHING = "–"  # noqa: RUF001 - a dash for what is not there
LONGEST_LINE = 300
LONGEST_VALUE = 100
LONGEST_OPEN_BLOCK = 30  # lines


UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, except tabs and line ends
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]|\r(?!\n)"
)
"""The characters that a browser does not draw, but that may change how it draws others.

The marks of text direction are among them. Joiners are not: some scripts and emoji need them."""


def with_unseen_shown(text: str) -> str:
    """Return the text with each character of UNSEEN replaced by a name such as `[U+202E]`."""
    return UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def duration_text(seconds: float | None) -> str:
    """Return seconds in a suitable unit: `340 ms`, `1.24 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def local(moment: datetime) -> datetime:
    """Return the time in Django's current time zone, which a project may set for each viewer."""
    return moment.astimezone(timezone.get_current_timezone())


def time_text(moment: datetime | None) -> str:
    """Return the time in the current time zone, to the second: `2026-11-24 04:42:10 CET`."""
    return f"{local(moment):%Y-%m-%d %H:%M:%S %Z}" if moment else NOTHING


def pretty(value: object) -> str:
    """Return the value as JSON, indented if it is too long for one line."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= LONGEST_VALUE else json.dumps(value, indent=2, ensure_ascii=False)


def number_text(number: int) -> str:
    """Return the number with the separators of the current language: `1,234`."""
    return number_format(number, force_grouping=True)


def first_line(text: str) -> str:
    """Return the first line of a text, cut to LONGEST_LINE characters."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


@dataclass(frozen=True, slots=True)
class Block:
    """A text of several lines under a heading. A long one is collapsed."""

    title: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n") + 1

    @property
    def is_long(self) -> bool:
        return self.lines > LONGEST_OPEN_BLOCK


def argument_blocks(args: object, kwargs: object) -> list[Block]:
    """Return the arguments of a task as JSON. Long ones are collapsed."""
    return [Block("args", pretty(args)), Block("kwargs", pretty(kwargs))]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A LogEvent as texts for display."""

    moment: str
    day: str
    time: str
    level: str
    logger: str
    event: str
    attributes: list[tuple[str, str]]
    blocks: list[Block]


def log_lines(messages: object) -> list[LogLine]:
    """Return the messages of a row for display. Skip values that are not LogEvents."""
    events = messages if isinstance(messages, list) else []
    return [_log_line(event) for event in events if isinstance(event, dict)]


def worst_line(lines: list[LogLine]) -> LogLine | None:
    """Return the last error. Without one, return the last warning, or None."""
    for levels in (ERROR_LEVELS, WARNING_LEVELS):
        for line in reversed(lines):
            if line.level in levels:
                return line
    return None


def _log_line(event: dict[str, Any]) -> LogLine:
    moment, day, time = _moment(str(event.get("timestamp", "")))
    level = str(event.get("log_level", ""))
    text = str(event.get("event", "")).strip()
    attributes, blocks = _attributes(event.get("attributes"))
    line = first_line(text)
    if line != text:
        blocks.insert(0, Block(pgettext("systemtasks", "Whole message"), text))
    return LogLine(
        moment=moment,
        day=day,
        time=time,
        level=level if level in LEVELS else "notset",
        logger=str(event.get("logger", "")),
        event=line,
        attributes=attributes,
        blocks=blocks,
    )


def _moment(text: str) -> tuple[str, str, str]:
    """Return a timestamp in three forms: date and time, day with zone, time to the millisecond."""
    try:
        moment = local(utc(text))
    except (ValueError, OverflowError):
        return text, "", text
    time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    # Translators: the day above a log's lines, in Django's format characters.
    day = dateformat.format(moment, pgettext("systemtasks", "l, j F Y"))
    return f"{moment:%Y-%m-%d} {time} {moment:%Z}", f"{day}, {moment:%Z}", time


def _attributes(attributes: object) -> tuple[list[tuple[str, str]], list[Block]]:
    short: list[tuple[str, str]] = []
    blocks: list[Block] = []
    for key, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("traceback"), str):
            blocks.append(Block(pgettext("systemtasks", "Traceback"), value["traceback"].rstrip()))
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if "\n" in text or len(text) > LONGEST_VALUE:
            blocks.append(Block(key, value if isinstance(value, str) else pretty(value)))
        else:
            short.append((key, text))
    return short, blocks
