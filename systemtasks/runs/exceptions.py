"""Turn an exception into texts without running code of its own.

`str()` of an exception may do anything. So may `traceback`, which reads objects' attributes to
suggest a name for a misspelt one.
"""

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from systemtasks.conf import conf
from systemtasks.own_logger import OwnLogger
from systemtasks.runs.kinds import built_in_number, full_name, is_of, is_plain, is_printable
from systemtasks.runs.secret_texts import OwnSecrets
from systemtasks.runs.values import (
    Printer,
    Rendering,
    clean_end,
    clean_text,
    describe,
)

TYPE_LIMIT = 255  # characters
ARGUMENT_LIMIT = 20  # arguments of an exception that Python may print by itself
FRAME_LIMIT = 1000
"""The maximum number of frames printed in a traceback, over all its exceptions."""
EXCEPTION_LIMIT = 100
"""The maximum number of exceptions in a traceback, including causes, contexts and members."""
NOTE_LIMIT = 20  # notes of an exception
GROUP_LIMIT = 15  # exceptions of a group
DEPTH_LIMIT = 10  # groups within groups
SEARCHED_LIMIT = 1_000_000
"""The maximum length, in characters, of a printed traceback that is searched for a message."""

CALLERS = (
    "/celery/app/trace.py",
    "/celery/app/task.py",
    "/celery/app/autoretry.py",
    "/sentry_sdk/",
    "/opentelemetry/",
    "/ddtrace/",
    "/newrelic/",
    "/elasticapm/",
)
"""Parts of the names of files that call a task: Celery's, and those of libraries that wrap it."""

CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"

PRINTED_BY_PYTHON: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (BaseException, ("args",)),
    (KeyError, ("args",)),
    (OSError, ("args", "errno", "strerror", "filename", "filename2")),
    (ImportError, ("args", "msg")),
    (SyntaxError, ("msg", "filename", "lineno")),
    (UnicodeDecodeError, ("encoding", "reason")),
    (UnicodeEncodeError, ("encoding", "reason")),
    (UnicodeTranslateError, ("reason",)),
    (BaseExceptionGroup, ("message",)),
)
"""The classes that define a `__str__` in Python itself, and the attributes that it reads."""

_own: Any = BaseException.__dict__
_classes: Any = type.__dict__["__mro__"].__get__
_names: Any = type.__dict__["__dict__"].__get__


@dataclass(frozen=True, slots=True)
class ExceptionText:
    """An exception as texts. The traceback includes the exceptions that it was raised from."""

    type: str
    message: str
    traceback: str

    @property
    def line(self) -> str:
        """Return the type and the message, like the last line of a traceback."""
        return f"{self.type}: {self.message}" if self.message else self.type

    def masked(self, own: OwnSecrets | None) -> "ExceptionText":
        """Return the texts with these values masked."""
        if own is None:
            return self
        return ExceptionText(self.type, own.mask(self.message), own.mask(self.traceback))

    @classmethod
    def of(cls, error: BaseException, limit: int, printed: object = None) -> "ExceptionText":
        """Return the texts of an exception, each of at most about `limit` characters.

        `printed` is a traceback that already exists as text (Celery's, for example), or None.
        """
        name = clean_text(full_name(type(error)), TYPE_LIMIT)
        message = _message(error, limit, printed)
        return cls(name, message, clean_end(_Traceback(limit).text(error, message, printed), limit))


def printable(value: object, limit: int) -> object:
    """Return the value, or a replacement that is fast and safe to format.

    Formatting the result runs no code of the value's own. `limit` is in characters.
    """
    if is_plain(value, limit) or is_printable(value):
        return value
    if (number := built_in_number(value)) is not None and is_printable(number):
        return number
    printed = Printer(limit, conf().MASK_TEXTS).clean(value)
    if is_of(value, BaseException):
        return Rendering(_message(value, limit), repr(printed))
    return printed


def formatted(value: object, limit: int) -> str:
    """Return the value's `str()`, or a description if that would run code of its own."""
    return value if type(value) is str else str(printable(value, limit))


def log_handled(logger: OwnLogger, message: str, *args: object) -> None:
    """Log the exception that is being handled, as `logger.exception` does, but as plain text.

    Formatting the record of `logger.exception` would run code of the exception and its causes.
    """
    error = sys.exc_info()[1]
    text = "" if error is None else ExceptionText.of(error, conf().TEXT_LIMIT).traceback
    message = f"{message}\n%s"
    logger.error(message, *args, text)


def _message(error: BaseException, limit: int, printed: object = None) -> str:
    """Return the exception's message.

    Its `str()` is used if that is Python's own, then the message in `printed`, then its arguments.
    """
    own_str = _own_str(type(error))
    for kind, read in PRINTED_BY_PYTHON:
        if own_str is kind.__str__:
            if all(_is_plain(getattr(kind, name).__get__(error), limit) for name in read):
                return clean_text(own_str(error), limit)
            break
    if type(printed) is str and (message := _message_in(printed, error)) is not None:
        return clean_text(message, limit)
    return _message_of(_arguments(error), limit)


def _message_of(arguments: tuple[object, ...], limit: int) -> str:
    if not arguments:
        return ""
    return describe(arguments[0] if len(arguments) == 1 else arguments, limit)


def _own_str(kind: type) -> Any:  # noqa: ANN401
    """Return the `__str__` of an exception class without asking its metaclass."""
    return next(names["__str__"] for one in _classes(kind) if "__str__" in (names := _names(one)))


def _is_plain(value: object, limit: int) -> bool:
    if type(value) is tuple:
        return len(value) <= ARGUMENT_LIMIT and all(is_plain(one, limit) for one in value)
    return is_plain(value, limit)


def _message_in(printed: str, error: BaseException) -> str | None:
    """Return this exception's message as found in a printed traceback, or None."""
    if len(printed) > SEARCHED_LIMIT:
        return None
    _, found, message = f"\n{printed}".rpartition(f"\n{full_name(type(error))}: ")
    if not found:
        return None
    for end in (CAUSED, DURING):
        message = message.partition(end)[0]
    return message.removesuffix("".join(_notes(error, len(message)))).removesuffix("\n")


def _arguments(error: BaseException) -> tuple[object, ...]:
    given: tuple[object, ...] = _own["args"].__get__(error)
    return given


class _Traceback:
    """Prints a traceback as Python does, up to the limits above."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames_left = FRAME_LIMIT
        self._printed: set[int] = set()
        self._depth = 0

    def text(self, error: BaseException, message: str, printed: object = None) -> str:
        """Return the traceback of the exception and of the exceptions that it was raised from.

        `printed` is this traceback as Python has printed it, or None if there is none.
        """
        # Printed from the end, because the end of a long traceback is kept.
        parts = [self._block(error, message)]
        size = len(parts[0])
        while (before := _before(error)) is not None:
            link, error = before
            if size >= self._limit or not self._is_next(error):
                break
            if type(printed) is str:  # the text before the link is of this exception
                printed = printed.rpartition(link)[0]
            block = self._block(error, _message(error, self._limit, printed))
            parts += (link, block)
            size += len(link) + len(block)
        return "".join(reversed(parts))

    def _is_next(self, error: BaseException) -> bool:
        return id(error) not in self._printed and len(self._printed) < EXCEPTION_LIMIT

    def _block(self, error: BaseException, message: str) -> str:
        self._printed.add(id(error))
        name = full_name(type(error))
        lines = [f"{name}: {message}\n" if message else f"{name}\n", *_notes(error, self._limit)]
        if is_of(error, BaseExceptionGroup):
            lines += self._members(error)
        return "".join((*self._frames(error), *lines))

    def _frames(self, error: BaseException) -> list[str]:
        first = last = _own_frames(_own["__traceback__"].__get__(error))
        for _ in range(self._frames_left):
            last = last and last.tb_next
        left_out = 0
        while first and last:
            first, last = first.tb_next, last.tb_next
            left_out += 1
        if first is None or not self._frames_left:
            return []
        frames = traceback.extract_tb(first)
        self._frames_left -= len(frames)
        note = [f"  ({left_out} frames are left out)\n"] if left_out else []
        kind = "Exception Group Traceback" if is_of(error, BaseExceptionGroup) else "Traceback"
        return [f"{kind} (most recent call last):\n", *note, *frames.format()]

    def _members(self, group: BaseExceptionGroup[BaseException]) -> Iterator[str]:
        exceptions: Any = BaseExceptionGroup.exceptions
        members = exceptions.__get__(group)
        self._depth += 1
        for number, error in enumerate(members, 1):
            if number > GROUP_LIMIT or self._depth > DEPTH_LIMIT or not self._is_next(error):
                yield f"  +---------------- {len(members) - number + 1} more ----------------\n"
                break
            yield f"  +---------------- {number} ----------------\n"
            text = self.text(error, _message(error, self._limit))
            yield "".join(f"  | {line}" for line in text.splitlines(keepends=True))
        self._depth -= 1


def _before(error: BaseException) -> tuple[str, BaseException] | None:
    """Return the exception that led to this one, after the line that links them, or None."""
    cause: BaseException | None = _own["__cause__"].__get__(error)
    if cause is not None:
        return CAUSED, cause
    context: BaseException | None = _own["__context__"].__get__(error)
    if context is None or _own["__suppress_context__"].__get__(error):
        return None
    return DURING, context


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback without its first frames, which call the task."""
    own = frames
    while own and _calls_the_task(own.tb_frame.f_code.co_filename):
        own = own.tb_next
    return own or frames


def _calls_the_task(file: str) -> bool:
    file = file.replace("\\", "/")
    return any(part in file for part in CALLERS)


def _notes(error: BaseException, limit: int) -> Iterator[str]:
    notes = dict.get(_own["__dict__"].__get__(error), "__notes__")
    if type(notes) is list or type(notes) is tuple:
        for note in notes[:NOTE_LIMIT]:
            yield f"{describe(note, limit)}\n"
