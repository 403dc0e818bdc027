"""Loggers of this app. A project's logging configuration cannot silence them by accident."""

import logging
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Adapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class OwnLogger(Adapter):
    """A logger that is not disabled for long.

    `dictConfig` disables all loggers that exist and that it does not name, unless the project asks
    it not to. Errors such as runs that are not written would then be lost. Levels and filters count
    as usual.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """Enable the logger, and return True if it logs at this level."""
        self.logger.disabled = False
        return super().isEnabledFor(level)


def own_logger(name: str) -> OwnLogger:
    """Return this app's logger of that name, usually a module's."""
    return OwnLogger(logging.getLogger(name), {})
