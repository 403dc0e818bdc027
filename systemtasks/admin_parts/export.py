"""Stream the rows of a list as CSV or NDJSON: those that its filters and its search leave.

The rows are read in pages, each by the values of the last row before it, so that a page is a short
statement of its own, costs as much as the first one, and holds no cursor or transaction open.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import StreamingHttpResponse

from systemtasks.admin_parts.text import with_unseen_shown

EXPORT_LIMIT = 100_000
"""Rows that one export has at most: a web server may hold them all, as this service's own does."""

PAGE = 1000
"""Rows that are read at once."""

Column = tuple[str, Callable[[Any], Any]]

FORMULA_SIGNS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
"""With one of these, a text may be the beginning of a formula in a program for spreadsheets.

The last four are the full-width forms."""


class _Line:
    """A file for csv.writer, which returns what is written to it."""

    def write(self, text: str) -> str:
        return text


def pages(rows: "QuerySet[Any]", order: tuple[str, str]) -> Iterator[Any]:
    """Yield all rows, newest first. The order has the name of a time, and that of a unique column.

    Rows without a time come first. A row that gets its time meanwhile may be missed.
    """
    time, key = order
    timeless = rows.filter(**{f"{time}__isnull": True}).order_by(f"-{key}")
    timed = rows.filter(**{f"{time}__isnull": False}).order_by(f"-{time}", f"-{key}")
    page = list(timeless[:PAGE])
    while page:
        yield from page
        page = list(timeless.filter(**{f"{key}__lt": getattr(page[-1], key)})[:PAGE])
    page = list(timed[:PAGE])
    while page:
        yield from page
        moment, last = getattr(page[-1], time), getattr(page[-1], key)
        # The first condition is one that the index of the times can be searched by.
        after = Q(**{f"{time}__lte": moment}) & (
            Q(**{f"{time}__lt": moment}) | Q(**{f"{key}__lt": last})
        )
        page = list(timed.filter(after)[:PAGE])


def csv_lines(rows: Iterable[Any], columns: list[Column]) -> Iterator[str]:
    """Yield the rows as CSV (RFC 4180), with a heading."""
    writer = csv.writer(_Line())
    yield writer.writerow([name for name, _ in columns])
    for row in rows:
        yield writer.writerow([csv_cell(value(row)) for _, value in columns])


def csv_cell(value: object) -> object:
    """Return a value as a cell of CSV. A text that might be a formula begins with an apostrophe."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return _plain(value)
    text = with_unseen_shown(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_SIGNS) else text


def json_lines(rows: Iterable[Any], columns: list[Column]) -> Iterator[str]:
    """Yield the rows as NDJSON: an object in each line."""
    for row in rows:
        line = {name: value(row) for name, value in columns}
        yield json.dumps(line, default=_plain, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


FORMATS: dict[str, tuple[str, Callable[[Iterable[Any], list[Column]], Iterator[str]]]] = {
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "ndjson": ("application/x-ndjson", json_lines),
}


def response(
    rows: Iterable[Any], columns: list[Column], name: str, kind: str
) -> StreamingHttpResponse:
    """Return the response that streams the rows as a file of this name, in one of FORMATS."""
    content_type, lines = FORMATS[kind]
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.{kind}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingHttpResponse(
        _in_parts(lines(islice(rows, EXPORT_LIMIT), columns)),
        content_type=content_type,
        headers=headers,
    )


def _in_parts(lines: Iterable[str], size: int = 65_536) -> Iterator[bytes]:
    """Yield the lines in parts of about this many characters: each is a packet of its own."""
    part: list[str] = []
    length = 0
    for line in lines:
        part.append(line)
        length += len(line)
        if length >= size:
            yield "".join(part).encode(errors="replace")
            part, length = [], 0
    yield "".join(part).encode(errors="replace")
