"""A run's messages, as the LogEvents of the contract, bounded in number and size."""

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
"""The logger of the message that replaces those left out."""

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
    """Return the contract's name of a logging level, or of the level just below a custom one."""
    return next((name for bound, name in LEVEL_NAMES if level >= bound), "notset")


Message = tuple[float, int, str, str, Mapping[str, Any]]
"""A LogEvent in a line of the journal: time (in seconds since 1970), level, logger, event and
attributes."""

KEYS_SIZE = 72
"""The number of bytes that a LogEvent takes more in its row than in the line."""


def log_events(messages: Iterable[Message]) -> str:
    """Return the messages as JSON, with the keys of authentik's `LogEventSerializer`."""
    events = [
        {
            # A project may make log records itself, with values of any type.
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
    """Return the messages of a task that has not completed a run, as JSON."""
    return log_events([(time.time(), logging.INFO, name, NOT_RUN_YET, {})])


SHORT = 256
"""The maximum length, in characters, of a short message's event."""
SHORT_SIZE = 4096
"""The maximum size, in bytes, of a short message as JSON, with every character escaped."""

ATTRIBUTES_SHARE = 8
"""A message's attributes take at most MESSAGES_LIMIT divided by this number."""
EXCEPTION = "exception"
"""The attribute with the texts of an exception."""


class Messages:
    """Keeps a run's first and last messages. Any thread may add to them."""

    added = 0
    """The number of messages added so far, kept or not."""
    _size = 0
    _progress: bytes | None = None
    _tail: deque[bytes] | None = None  # few runs have so many messages
    _left_out = 0

    def __init__(self) -> None:
        # Reentrant, because the garbage collector may run here, and a finalizer may log.
        self._lock = RLock()
        self._few: list[Message] | None = []  # not encoded, while short messages surely fit
        self._head: list[bytes] = []

    def append(self, message: Message) -> None:
        """Add a message, and cut large attributes. They must be of JSON's own types."""
        with self._lock:
            self.added += 1
            if (few := self._few) is not None:
                if not message[4] and len(message[3]) <= SHORT and _room_for(len(few)):
                    few.append(message)
                    return
                self._encode(few)
            if self._progress is not None:
                progress, self._progress = self._progress, None
                self._keep(progress)
            text = dumped(message)
            if len(text) > conf().MESSAGES_LIMIT // ATTRIBUTES_SHARE:
                text = _with_small_attributes(text)
            self._keep(text)

    def progress(self, message: Message) -> None:
        """Add a progress message, which replaces the last message if that was one, too."""
        with self._lock:
            self.added += 1
            if self._few is not None:
                self._encode(self._few)
            self._progress = dumped(message)

    def for_journal(self) -> list[Message] | orjson.Fragment:
        """Return the messages that are kept, for orjson to encode.

        If messages are left out, another message in their place says how many.
        """
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
    """Return the message as JSON. Make values safe that JSON has no type for."""
    try:
        return orjson.dumps(message)
    except TypeError:  # from an unusual log record, or with unusual numbers
        clean = Cleaner(conf().TEXT_LIMIT).clean
        return orjson.dumps([clean(value) for value in message])


def _with_small_attributes(text: bytes) -> bytes:
    """Return a message, given as JSON, with its attributes cut to their share of MESSAGES_LIMIT.

    The largest ones are replaced by notes of their size. The attribute of an exception has limits
    of its own. It is kept if the whole message then takes at most half of MESSAGES_LIMIT.
    """
    limit = conf().MESSAGES_LIMIT
    *others, attributes = orjson.loads(text)
    errors = {name: attributes.pop(name) for name in [EXCEPTION] if name in attributes}
    sizes = {name: len(orjson.dumps(value)) for name, value in attributes.items()}
    excess = len(orjson.dumps(attributes)) - limit // ATTRIBUTES_SHARE
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if excess <= 0:
            break
        attributes[name] = _left_out(sizes[name])
        excess -= sizes[name] - len(attributes[name]) - 2
    if excess > 0:  # there are too many of them, or their names are too long
        attributes = {"…": _left_out(sum(sizes.values()))}
    if errors:
        whole = len(orjson.dumps([*others, attributes | errors])) + KEYS_SIZE
        note = {EXCEPTION: _left_out(len(orjson.dumps(errors[EXCEPTION])))}
        attributes |= errors if whole <= limit // 2 else note
    return orjson.dumps([*others, attributes])


def _left_out(size: int) -> str:
    return f"(left out: {size} bytes)"


def _room_for(number: int) -> bool:
    """Return True if a short message fits after `number` others with any characters."""
    rules = conf()
    return number < rules.MESSAGE_LIMIT // 2 and (number + 1) * SHORT_SIZE <= (
        rules.MESSAGES_LIMIT // 2
    )
