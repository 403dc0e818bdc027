"""The table: Markdown that reads well as plain text, too."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

USERS = ("children", "main process", "Postgres", "broker", "event reader")
"""Whose processor time is told."""


@dataclass(frozen=True)
class Row:
    """One figure, as text; what it does not have stays empty."""

    name: str
    median: str
    range: str = ""
    rate: str = ""
    """Tasks a second."""
    cpu: Mapping[str, str] = field(default_factory=dict)
    """Microseconds of processor time a task, by who used them."""
    behind: str = ""

    def cells(self) -> list[str]:
        """The row's texts, in the order of HEADER."""
        used = [self.cpu.get(user, "") for user in USERS]
        return [self.name, self.median, self.range, self.rate, *used, self.behind]


HEADER = Row(
    "",
    "median",
    "lowest to highest",
    "tasks/s",
    {user: f"CPU µs: {user}" for user in USERS},
    "rows behind at the end",
).cells()


def spread(values: Sequence[float], unit: str, *, digits: int) -> tuple[str, str]:
    """The median with its unit, and the range."""
    middle, *ends = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} {unit}", " to ".join(ends)


def as_text(rows: Sequence[Row]) -> str:
    """The table as lines, its columns aligned."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in (lines[0], rule, *lines[1:])
    )
