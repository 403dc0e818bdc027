"""Define the rows of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, field

USERS = ("children", "main process", "Postgres", "broker", "event reader")
"""The processes whose processor time is printed."""


@dataclass(frozen=True)
class Row:
    """A figure, as texts. A cell without a value is empty."""

    name: str
    median: str
    range: str = ""
    rate: str = ""
    """Tasks a second."""
    cpu: Mapping[str, str] = field(default_factory=dict)
    """Processor time for a task, in microseconds, by process."""
    behind: str = ""

    def cells(self) -> list[str]:
        """Return the texts of the row, in the order of HEADER."""
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
