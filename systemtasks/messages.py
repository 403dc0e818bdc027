"""What a run says, as the LogEvents of the contract, bounded in number and size."""

import logging
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any

import orjson

LEVEL_NAMES = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
    (logging.NOTSET, "notset"),
)


@lru_cache
def level_name(level: int) -> str:
    """The contract's name of a logging level; a custom level has that of the nearest below."""
    return next((name for bound, name in LEVEL_NAMES if level >= bound), "notset")


def log_event(
    timestamp: datetime | str, level: int, logger: str, event: str, attributes: dict[str, Any]
) -> dict[str, Any]:
    """A LogEvent, with the keys of authentik's `LogEventSerializer`."""
    return {
        "timestamp": timestamp,
        "log_level": level_name(level),
        "logger": logger,
        "event": event,
        "attributes": attributes,
    }


def encode(messages: list[dict[str, Any]]) -> str:
    """LogEvents as the JSON text that a row takes."""
    return orjson.dumps(messages, option=orjson.OPT_UTC_Z).decode()


NOT_RUN_YET = "Task has not been run yet."  # authentik's own words


def not_run_yet(name: str) -> str:
    """The messages of a task without a run that has ended, as JSON."""
    return encode([log_event(datetime.now(UTC), logging.INFO, name, NOT_RUN_YET, {})])


class Messages:
    """A run's messages as JSON: the first and the last are kept. Any thread may add to them.

    `said` is how often something was added.
    """

    __slots__ = (
        *("_head", "_head_left", "_head_room", "_left_out", "_lock", "_progress"),
        *("_tail", "_tail_limit", "_tail_room", "said"),
    )

    def __init__(self, count_limit: int, size_limit: int) -> None:
        self._lock = Lock()
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_left = count_limit // 2
        self._head_room = size_limit // 2
        self._tail_limit = count_limit - count_limit // 2
        self._tail_room = size_limit - size_limit // 2
        self._left_out = 0
        self._progress: bytes | None = None
        self.said = 0

    def append(self, message: dict[str, Any]) -> None:
        """Add one LogEvent of the contract, in JSON's own types."""
        text = orjson.dumps(message, option=orjson.OPT_UTC_Z)
        with self._lock:
            self.said += 1
            if self._progress is not None:
                progress, self._progress = self._progress, None
                self._keep(progress)
            self._keep(text)

    def progress(self, message: dict[str, Any]) -> None:
        """Add a LogEvent that gives way to the next one of its kind, if nothing comes between."""
        text = orjson.dumps(message, option=orjson.OPT_UTC_Z)
        with self._lock:
            self.said += 1
            self._progress = text

    def json(self) -> str:
        """The array of all that is kept, with a message in the gap that says how many are not."""
        with self._lock:
            kept = [*self._head, *self._tail]
            gap, left_out = len(self._head), self._left_out
            if self._progress is not None:
                kept.append(self._progress)
        if left_out:
            event = f"{left_out} messages are left out here"
            oldest_after = orjson.loads(kept[gap])["timestamp"]
            note = log_event(oldest_after, logging.INFO, __name__, event, {})
            kept.insert(gap, orjson.dumps(note))
        return f"[{b','.join(kept).decode()}]"

    def _keep(self, text: bytes) -> None:
        if not self._tail and self._head_left > 0 and len(text) <= self._head_room:
            self._head.append(text)
            self._head_left -= 1
            self._head_room -= len(text)
            return
        self._tail.append(text)
        self._tail_room -= len(text)
        while len(self._tail) > self._tail_limit or (self._tail_room < 0 and len(self._tail) > 1):
            self._tail_room += len(self._tail.popleft())
            self._left_out += 1
