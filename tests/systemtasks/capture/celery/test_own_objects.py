"""Our code never runs the code of objects that a task logs, reports, raises or is given."""

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Retry
from pytest_django import Settings

from systemtasks import reporting
from systemtasks.capture import logs
from systemtasks.capture.celery import received, signals
from systemtasks.capture.celery.options import task_info
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import BEAT_HEADER, CONTEXT_HEADER, SENT_HEADER
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import TaskInfo
from systemtasks.states import State
from tests.systemtasks.conftest import MakeTask
from tests.systemtasks.runs.test_recorder import INFO, begin
from tests.systemtasks.traps import all_traps, armed, asked

logger = logging.Logger("shop", logging.INFO)  # noqa: LOG001 - no other handler may hear it
Step = Callable[[], Any]


@pytest.fixture(autouse=True)
def _no_run_is_left() -> Iterator[None]:
    yield
    recorder.current.set(None)


def log(message: Any, *args: Any, error: Any = None, **extra: Any) -> Step:
    """Pass our handler the record that a logger has made of a call."""
    info: Any = None if error is None else (ValueError, error, None)
    record = logger.makeRecord("shop", logging.INFO, "shop.py", 1, message, args, info, extra=extra)
    return lambda: logs.add(record)


def log_odd(**fields: Any) -> Step:
    record = logging.makeLogRecord({"name": "shop", "msg": "Said", **fields})
    return lambda: logs.add(record)


def attempt(info: TaskInfo = INFO, args: Any = (), kwargs: Any = None, **request: Any) -> Step:
    given = {"id": "id-2", **request}
    return lambda: received.attempt(info, given, args, kwargs or {}).finish(State.SUCCESS).line


def send(args: Any, kwargs: Any, **headers: Any) -> Step:
    sent = {"id": "id-2", **headers}
    where = {"exchange": "", "routing_key": "celery"}
    return lambda: received.queued("shop.charge", sent, (args, kwargs, {}), where)


def fail(error: Any) -> Step:
    task = SimpleNamespace(request=SimpleNamespace(retries=0))
    return lambda: signals.note_failure(task, "id-1", error)  # type: ignore[arg-type]


def retry(reason: Any) -> Step:
    return lambda: signals.note_retry(SimpleNamespace(id="id-1", retries=0), reason)


def noted(thing: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = thing
    return error


def caused(thing: Any) -> BaseException:
    error = ValueError("raised")
    error.__context__ = thing if issubclass(type(thing), BaseException) else ValueError(thing)
    return error


WAYS: dict[str, Callable[[Any], Step]] = {
    "extra": lambda thing: log("Said", thing=thing),
    "argument": lambda thing: log("Said %s", thing),
    "argument in other ways": lambda thing: log("Said %r of %a and %10.3s", thing, thing, thing),
    "argument as a number": lambda thing: log("Said %d", thing),
    "argument as a width": lambda thing: log("Said %*d", thing, 7),
    "argument among others": lambda thing: log("Said %s %s %.2f", 7, thing, 1.5),
    "named argument": lambda thing: log("Said %(thing)s", {"thing": thing}),
    "named arguments as one": lambda thing: log("Said %s", {"thing": thing}),
    "message": lambda thing: log(thing),
    "message with an argument": lambda thing: log(thing, 7),
    "structured event": lambda thing: log({"event": thing, "order": 7}),
    "structured attribute": lambda thing: log({"event": "Said", "thing": thing}),
    "logged exception": lambda thing: log("Said", error=thing),
    "argument of a logged exception": lambda thing: log("Said", error=ValueError(thing)),
    "odd logger": lambda thing: log_odd(name=thing),
    "odd level": lambda thing: log_odd(levelno=thing),
    "odd time": lambda thing: log_odd(created=thing),
    "odd arguments": lambda thing: log_odd(msg="Said %s", args=thing),
    "odd exception": lambda thing: log_odd(exc_info=thing),
    "odd text of an exception": lambda thing: log_odd(
        exc_info=(None, caused(thing), None), exc_text=thing
    ),
    "odd formatted message": lambda thing: log_odd(msg="Said %s", args=([],), message=thing),
    "reported event": lambda thing: lambda: reporting.info(thing),
    "reported attribute": lambda thing: lambda: reporting.error("Said", thing=thing, other=[thing]),
    "uid": lambda thing: lambda: reporting.set_uid(thing),
    "status": lambda thing: lambda: reporting.set_status(thing),
    "progress": lambda thing: lambda: reporting.progress(thing),
    "total": lambda thing: lambda: reporting.progress(1, thing),
    "failure": lambda thing: fail(ValueError(thing)),
    "failure with arguments": lambda thing: fail(OSError(thing, thing)),
    "failure with notes": lambda thing: fail(noted(thing)),
    "failure with a context": lambda thing: fail(caused(thing)),
    "reason of a retry": lambda thing: retry(caused(thing)),
    "time of a retry": lambda thing: retry(Retry("later", None, thing)),
    "argument of a task": lambda thing: attempt(args=[thing], kwargs={"thing": thing}),
    "arguments of a task": lambda thing: attempt(args=thing),
    "named arguments of a task": lambda thing: attempt(kwargs={"thing": thing}),
    "all arguments of a task": lambda thing: lambda: received.attempt(INFO, {}, (), thing),
    "made uid": lambda thing: attempt(TaskInfo("shop.charge", uid=lambda *_, **__: thing)),
    "id": lambda thing: attempt(id=thing),
    "id of another run": lambda thing: lambda: recorder.end(thing),
    "field of a request": lambda thing: attempt(
        retries=thing, eta=thing, hostname=thing, origin=thing, parent_id=thing, root_id=thing
    ),
    "header of a request": lambda thing: attempt(
        **{BEAT_HEADER: thing, SENT_HEADER: thing, CONTEXT_HEADER: thing}
    ),
    "headers of a request": lambda thing: attempt(headers=thing),
    "delivery of a request": lambda thing: attempt(delivery_info=thing),
    "queue of a request": lambda thing: attempt(delivery_info={"routing_key": thing}),
    "sent argument": lambda thing: send((thing,), {"thing": thing}),
    "sent header": lambda thing: send((), {}, origin=thing, **{SENT_HEADER: thing}),
}


def written(run: Run) -> bytes:
    return run.finish(State.SUCCESS).line


@pytest.mark.parametrize("way", WAYS)
def test_no_code_of_an_object_runs(way: str) -> None:
    for kind, thing in all_traps().items():
        run, step = begin(id="id-1"), WAYS[way](thing)
        try:
            with armed():
                step()
                written(run)
        except SystemExit:
            pytest.fail(f"{way}, {kind}: {asked}")
        assert asked == [], kind


@pytest.mark.parametrize("way", ["failure", "reason of a retry", "logged exception"])
def test_no_code_of_an_exception_runs(way: str) -> None:
    ends = {
        "failure": fail,
        "reason of a retry": retry,
        "logged exception": WAYS["logged exception"],
    }
    for kind, thing in all_traps().items():
        if not issubclass(type(thing), BaseException):
            continue
        run, step = begin(id="id-1"), ends[way](thing)
        with armed():
            step()
            line = written(run)
        assert asked == [], kind
        assert b"Trap" in line or b"rror" in line


def test_no_code_of_an_exception_that_is_being_handled_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log of our own failure includes the exception that is being handled."""
    for kind, thing in all_traps().items():
        if not issubclass(type(thing), BaseException):
            continue
        begin(id="id-1")
        info = TaskInfo("shop.charge", uid=raising(thing))
        try:
            raise thing
        except BaseException:  # noqa: BLE001
            with armed():
                reporting.set_uid(object())
                received.attempt(info, {}, (), {})
        assert asked == [], kind
    assert "Recording failed in set_uid" in caplog.text
    assert "systemtasks_uid of shop.charge raised" in caplog.text


def raising(thing: Any) -> Callable[..., object]:
    def uid(*_: object, **__: object) -> object:
        raise ValueError(thing)

    return uid


_context: Any = None


def context() -> Any:
    return _context


def test_no_code_of_what_the_sender_says_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.context"}
    for kind, thing in all_traps().items():
        monkeypatch.setitem(globals(), "_context", {"thing": thing})
        with armed():
            said = received.context_header()
        assert asked == [], kind
        assert said
        assert said.startswith('{"thing":')


@pytest.mark.parametrize("where", ["__doc__", "systemtasks_description", "systemtasks_masked"])
def test_no_code_of_an_odd_option_runs(make_task: MakeTask, where: str) -> None:
    for kind, thing in all_traps().items():
        task = make_task(lambda: None)
        setattr(task, where, thing)
        with armed():
            info = task_info(task)
        assert asked == [], kind
        assert type(info.description) is str
