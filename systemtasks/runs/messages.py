"""What a run says, as the LogEvents of the contract, bounded in number and size."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from threading import RLock
from typing import Any

import orjson

from systemtasks.conf import conf
from systemtasks.runs.values import Cleaner, moment

LOGGER = "systemtasks.messages"
"""The logger of the message that stands where messages were left out."""

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


Message = tuple[float, int, str, str, Mapping[str, Any]]
"""What a line of the journal has of a LogEvent: when (in seconds since 1970), level, logger, event
and attributes."""

KEYS_SIZE = 72
"""How many bytes a LogEvent's keys, its time and its level take more than they do in a line."""


def log_events(messages: Iterable[Message]) -> str:
    """These messages as JSON, with the keys of authentik's `LogEventSerializer`."""
    events = [
        {
            # Whoever makes log records himself may make them of anything.
            "timestamp": moment(when) or datetime.now(UTC),
            "log_level": level_name(level if isinstance(level, int) else logging.INFO),
            "logger": logger,
            "event": event,
            "attributes": attributes,
        }
        for when, level, logger, event, attributes in messages
    ]
    return orjson.dumps(events, option=orjson.OPT_UTC_Z).decode()


NOT_RUN_YET = "Task has not been run yet."  # authentik's own words


def not_run_yet(name: str) -> str:
    """The messages of a task without a run that has ended, as JSON."""
    return log_events([(time.time(), logging.INFO, name, NOT_RUN_YET, {})])


SHORT = 256
"""How many characters the event of a short message has at the most."""
SHORT_SIZE = 4096
"""How many bytes of JSON a short message takes, if every character has to be escaped."""


class Messages:
    """A run's messages: the first and the last are kept. Any thread may add to them."""

    said = 0
    """How often something was added."""
    _size = 0
    _progress: bytes | None = None
    _tail: deque[bytes] | None = None  # few runs say so much
    _left_out = 0

    def __init__(self) -> None:
        # Garbage may be collected anywhere, and log when it is.
        self._lock = RLock()
        self._few: list[Message] | None = []  # as they are, while there is room for any such
        self._head: list[bytes] = []

    def append(self, message: Message) -> None:
        """Add one, in JSON's own types."""
        with self._lock:
            self.said += 1
            if (few := self._few) is not None:
                if not message[4] and len(message[3]) <= SHORT and _room_for(len(few)):
                    few.append(message)
                    return
                self._encode(few)
            if self._progress is not None:
                progress, self._progress = self._progress, None
                self._keep(progress)
            self._keep(dumped(message))

    def progress(self, message: Message) -> None:
        """Add one that gives way to the next one of its kind, if nothing comes between."""
        with self._lock:
            self.said += 1
            if self._few is not None:
                self._encode(self._few)
            self._progress = dumped(message)

    def told(self) -> list[Message] | orjson.Fragment:
        """All that is kept, for orjson, with a message in the gap that says how many are not."""
        with self._lock:
            if self._few is not None:
                return self._few.copy()
            kept = [*self._head, *(self._tail or ())]
            if self._progress is not None:
                kept.append(self._progress)
            gap, left_out = len(self._head), self._left_out
        if left_out:
            when = orjson.loads(kept[gap])[0]
            event = f"{left_out} messages are left out here"
            kept.insert(gap, orjson.dumps((when, logging.INFO, LOGGER, event, {})))
        return orjson.Fragment(b"[" + b",".join(kept) + b"]")

    def _encode(self, few: list[Message]) -> None:
        self._few = None
        for message in few:
            self._keep(dumped(message))

    def _keep(self, text: bytes) -> None:
        rules = conf()
        size = len(text) + KEYS_SIZE
        self._size += size
        if self._tail is None:
            if (
                len(self._head) < rules.MESSAGE_LIMIT // 2
                and self._size <= rules.MESSAGES_LIMIT // 2
            ):
                self._head.append(text)
                return
            self._tail, self._size = deque(), size
        self._tail.append(text)
        limit = rules.MESSAGE_LIMIT - rules.MESSAGE_LIMIT // 2
        room = rules.MESSAGES_LIMIT - rules.MESSAGES_LIMIT // 2
        while len(self._tail) > limit or (self._size > room and len(self._tail) > 1):
            self._size -= len(self._tail.popleft()) + KEYS_SIZE
            self._left_out += 1


def dumped(message: Message) -> bytes:
    """The message as JSON, whatever it is made of."""
    try:
        return orjson.dumps(message)
    except TypeError:  # of an odd log record, or of odd numbers
        rules = conf()
        clean = Cleaner(rules.TEXT_LIMIT, rules.HIDDEN_KEYS).clean
        return orjson.dumps([clean(value) for value in message])


def _room_for(number: int) -> bool:
    """Whether there is room for a short message after so many, whatever is in them."""
    rules = conf()
    return number < rules.MESSAGE_LIMIT // 2 and (number + 1) * SHORT_SIZE <= (
        rules.MESSAGES_LIMIT // 2
    )
