"""Format figures as a table in Markdown, which is also readable as plain text."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], unit: str, *, digits: int) -> tuple[str, str]:
    """Return two texts: the median with its unit, and the range."""
    middle, *ends = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} {unit}".rstrip(), " to ".join(ends)


def as_text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return the text of the table, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in (header, rule, *lines)
    )
