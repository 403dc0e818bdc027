"""The texts of an exception are Python's own, unless they would need code of the exception."""

import errno
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from hypothesis import given, settings
from hypothesis import strategies as st

from systemtasks.runs import exceptions
from systemtasks.runs.exceptions import ExceptionText, formatted
from tests.systemtasks.runs.test_values import local

LONG = 10**6


def raised(raise_it: Callable[[], object]) -> BaseException:
    try:
        raise_it()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def printed(error: BaseException) -> str:
    """Return the traceback as Celery prints it."""
    return "".join(traceback.format_exception(error))


class OwnTextError(Exception):
    def __init__(self, code: int, **fields: object) -> None:
        super().__init__(code)
        self.fields = fields

    def __str__(self) -> str:
        return f"the service says {self.args[0]}: {self.fields}"


class MultilineError(Exception):
    def __str__(self) -> str:
        return "first\n\nlast"


def chained() -> None:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise ValueError("outer") from inner


def during() -> None:
    try:
        raise OSError(errno.ENOENT, "No such file", "name")
    except OSError:
        int("text")


def suppressed() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("outer") from None


def recursive() -> None:
    recursive()


PLAIN: dict[str, Callable[[], object]] = {
    "chained": chained,
    "during": during,
    "suppressed": suppressed,
    "recursive": recursive,
    "no such file": lambda: open("/nowhere/to/be/found"),  # noqa: PTH123, SIM115
    "two files": lambda: os.rename("/nowhere/a", "/nowhere/b"),  # noqa: PTH104
    "closed": lambda: io.StringIO().fileno(),
    "decoding": lambda: b"\xff".decode(),
    "encoding": lambda: "\ud800".encode(),
    "import": lambda: __import__("no_such_module"),
    "attribute": lambda: object().no_such_attribute,  # type: ignore[attr-defined]
    "key": lambda: {"key": 7}["missing"],
    "arguments": lambda: (_ for _ in ()).throw(ValueError("text", 7, None)),
    "no arguments": lambda: (_ for _ in ()).throw(ValueError()),
    "lines": lambda: (_ for _ in ()).throw(ValueError("first\n\nlast")),
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "division": lambda: 1 / 0,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_exception_is_printed_as_python_prints_it(kind: str) -> None:
    error = raised(PLAIN[kind])
    text = ExceptionText.of(error, LONG)

    assert text.message == str(error)
    assert text.traceback == printed(error)
    assert text.traceback.endswith(f"{text.line}\n")


def test_type_message_and_line_are_told() -> None:
    text = ExceptionText.of(raised(chained), 5000)

    assert (text.type, text.message) == ("ValueError", "outer")
    assert text.line == "ValueError: outer"
    assert "KeyError: 'inner'" in text.traceback
    assert "direct cause" in text.traceback


def test_exception_without_a_message_is_its_type() -> None:
    assert ExceptionText.of(ValueError(), 100).line == "ValueError"


def test_notes_are_printed() -> None:
    error = ValueError("text")
    error.add_note("noted")
    error.add_note("once more")

    assert ExceptionText.of(error, 100).traceback == printed(error)


def test_syntax_error_names_its_place() -> None:
    error = raised(lambda: compile("a b", "code.py", "exec"))

    assert ExceptionText.of(error, LONG).message == str(error)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_exception_message_is_storable(message: str) -> None:
    text = ExceptionText.of(ValueError(message), 50)

    assert "\0" not in text.message + text.traceback
    (text.message + text.traceback).encode()


def test_group_is_printed_with_its_exceptions() -> None:
    inner = BaseExceptionGroup("inner", [raised(chained), TypeError("wrong")])
    error = raised(lambda: (_ for _ in ()).throw(BaseExceptionGroup("outer", [inner, OSError(2)])))
    text = ExceptionText.of(error, LONG)

    assert text.line == f"ExceptionGroup: {error}" == "ExceptionGroup: outer (2 sub-exceptions)"
    for line in printed(error).splitlines():
        said = line.strip(" |+-")
        assert said.isdigit() or said in text.traceback


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OwnTextError(7, detail="text"), "7"),
        (subprocess.CalledProcessError(1, ["false"]), "(1, ['false'])"),
        (ValueError(local()), "<Local>"),
        (ValueError("text", [local()]), "('text', [<Local>])"),
        (ValueError({"field": ["wrong"]}), "{'field': ['wrong']}"),
        (KeyError(local()), "<Local>"),
        (OSError(2, "No such file", local()), "(2, 'No such file')"),
        (ValueError("x" * 200), "x" * 100 + "… (100 more characters)"),
    ],
)
def test_message_that_needs_code_of_its_own_is_made_of_the_arguments(
    error: BaseException, message: str
) -> None:
    assert ExceptionText.of(error, 100).message == message


@pytest.mark.parametrize("notes", [[], ["noted", "once more"]])
@pytest.mark.parametrize("error", [OwnTextError(7, detail="text"), MultilineError()])
def test_message_that_somebody_has_printed_is_taken_from_there(
    error: BaseException, notes: list[str]
) -> None:
    for note in notes:
        error.add_note(note)
    error.__traceback__ = None
    alone, cause = printed(error), ValueError("later")
    cause.__cause__ = error
    other = ValueError("before")
    error.__context__ = other
    for text in (alone, printed(error), printed(cause), "Title\n" + alone):
        assert ExceptionText.of(error, 1000, text).message == str(error)

    error.__context__ = None
    assert ExceptionText.of(error, 1000, alone).traceback == alone


@pytest.mark.parametrize(
    "text", ["", "another", None, 7, b"bytes", "OtherError: 7", "x" * 2_000_000]
)
def test_text_that_does_not_have_the_message_is_left_alone(text: object) -> None:
    assert ExceptionText.of(OwnTextError(7), 100, text).message == "7"


def test_celery_prints_what_is_searched_for() -> None:
    """Celery and billiard may print tracebacks in other ways one day."""
    error = raised(lambda: (_ for _ in ()).throw(OwnTextError(7, detail="text")))
    info = ExceptionInfo((type(error), error, error.__traceback__))

    assert ExceptionText.of(error, 1000, info.traceback).message == str(error)


@pytest.mark.parametrize(
    ("value", "text", "representation"),
    [
        (ValueError("text"), "text", "ValueError('text')"),
        (ValueError("text", 7), "('text', 7)", "ValueError('text', 7)"),
        (OwnTextError(7), "7", "OwnTextError(7)"),
        (ValueError(), "", "ValueError()"),
    ],
)
def test_exception_is_formatted_as_its_message_or_as_a_call(
    value: object, text: str, representation: str
) -> None:
    found = exceptions.printable(value, 100)

    assert (f"{found}", f"{found!r}") == (text, representation)
    assert "%s|%r" % (found, found) == f"{text}|{representation}"  # noqa: UP031
    assert formatted(value, 100) == text


class OddNameError(Exception):
    __module__ = None  # type: ignore[assignment]


OddNameError.__qualname__ = "Odd\0\ud800" + "x" * 10_000


def test_odd_name_is_bounded_and_storable() -> None:
    text = ExceptionText.of(OddNameError("text"), 1000)

    assert text.type.startswith("Odd\N{REPLACEMENT CHARACTER}")
    assert len(text.type) < 300
    text.traceback.encode()


def chain(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(length):
        error, cause = ValueError(number), error
        error.__cause__ = cause
    return error


def deep_group(depth: int) -> BaseException:
    error: Exception = ValueError("inmost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


def many_frames() -> BaseException:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            raise ValueError("deep")

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return raised(lambda: dive(10_000))
    finally:
        sys.setrecursionlimit(limit)


LARGE: dict[str, Callable[[], BaseException]] = {
    "chain": lambda: chain(10_000),
    "group": lambda: ExceptionGroup("many", [ValueError(number) for number in range(10_000)]),
    "deep group": lambda: deep_group(500),
    "groups of groups": lambda: BaseExceptionGroup("many", [deep_group(20)] * 1000),
    "frames": many_frames,
    "message": lambda: ValueError("x" * 50_000_000),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_exception_takes_no_longer_than_a_small_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = LARGE[kind]()
    printed_frames, asked = 0, 0
    extract, message = traceback.extract_tb, exceptions._message

    def count_frames(*args: Any) -> Any:
        nonlocal printed_frames
        summary = extract(*args)
        printed_frames += len(summary)
        return summary

    def count_messages(*args: Any) -> str:
        nonlocal asked
        asked += 1
        return message(*args)

    monkeypatch.setattr(traceback, "extract_tb", count_frames)
    monkeypatch.setattr(exceptions, "_message", count_messages)
    text = ExceptionText.of(error, 8192)

    assert text.traceback.endswith("\n")
    assert len(text.traceback) < 8300
    assert printed_frames <= 1000
    assert asked <= 102


def test_exception_that_causes_itself_is_printed_once() -> None:
    error, other = ValueError("error"), ValueError("other")
    error.__cause__, other.__cause__ = other, error

    assert ExceptionText.of(error, 1000).traceback.count("ValueError: ") == 2


def test_causes_have_the_texts_that_python_has_printed() -> None:
    def fail() -> None:
        try:
            try:
                subprocess.run(["false"], check=True)
            except subprocess.CalledProcessError as error:
                raise OwnTextError(1) from error
        except OwnTextError:
            raise OwnTextError(2)  # noqa: B904 - the context is what is tested

    with pytest.raises(OwnTextError) as info:
        fail()
    text = ExceptionText.of(info.value, 8192, "".join(traceback.format_exception(info.value)))

    lines = [line for line in text.traceback.splitlines() if "Error: " in line]
    assert lines[0].endswith("Command '['false']' returned non-zero exit status 1.")
    assert [line.partition(": ")[2] for line in lines[1:]] == [
        str(OwnTextError(1)),
        str(OwnTextError(2)),
    ]


def called_from(files: list[str], function: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls the given one through a frame of each of these files."""
    for file in reversed(files):
        names: dict[str, Any] = {"function": function}
        exec(compile("def call():\n    function()\n", file, "exec"), names)
        function = names["call"]
    return function


def traceback_of(function: Callable[[], None]) -> str:
    try:
        function()
    except ZeroDivisionError as error:
        raised = error
        raised.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    return ExceptionText.of(raised, 10_000).traceback


def test_traceback_begins_with_the_task_and_not_with_what_calls_it() -> None:
    callers = ["/x/celery/app/trace.py", "/x/sentry_sdk/integrations/celery/__init__.py"]

    def divide() -> None:
        1 / 0  # noqa: B018

    printed = traceback_of(called_from([*callers, *callers, "/project/tasks.py"], divide))
    assert printed.count('File "') == 2
    assert '"/project/tasks.py"' in printed.splitlines()[1]


def test_traceback_of_what_calls_the_task_is_whole() -> None:
    def divide() -> None:
        1 / 0  # noqa: B018

    # A frame of the project is between two of a library.
    files = ["/project/tasks.py", "/x/sentry_sdk/hub.py"]
    assert traceback_of(called_from(files, divide)).count('File "') == 3
