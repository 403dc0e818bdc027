"""The writer's thread does not belong to the run that starts it, and is restarted if it dies."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import ProgrammingError, connection
from psycopg.errors import UndefinedTable
from pytest_django import Settings

from systemtasks import background
from systemtasks.runs import recorder
from systemtasks.runs.records import RunRecord
from systemtasks.storage import rows
from systemtasks.storage import writer as writer_module
from systemtasks.storage.writer import Writer
from tests import processes
from tests.systemtasks.entries import entry
from tests.systemtasks.runs.test_recorder import begin
from tests.waiting import eventually

ANYTHING: ContextVar[str] = ContextVar("anything", default="nothing")
"""A context variable like those of tracing libraries."""


class Killed(BaseException):
    """Not an Exception, like greenlet's GreenletExit."""


@pytest.fixture(autouse=True)
def _journal(settings: Settings, tmp_path: Path) -> None:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path / "journal")}


@pytest.fixture(autouse=True)
def _no_process_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this process does not run tests: otherwise there is no thread."""
    monkeypatch.setattr(writer_module, "is_under_test", lambda: False)


@pytest.fixture(autouse=True)
def _no_current_run() -> Iterator[None]:
    yield
    recorder.current.set(None)


@pytest.fixture(autouse=True)
def _no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "_housekeep", lambda _: None)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the ids of written runs. No row is written."""
    ids: list[str] = []

    def write(records: list[RunRecord]) -> None:
        ids.extend(record.celery_id for record in records)

    monkeypatch.setattr(rows, "write", write)
    return ids


@pytest.fixture
def thread_writer(written: list[str]) -> Iterator[Writer]:
    made = Writer()
    yield made
    resting = threading.Event()

    def rest() -> None:
        connection.close()
        resting.set()
        threading.Event().wait()

    if made._thread.is_alive:
        made._housekeep = rest  # type: ignore[method-assign]
        made._hurry.set()
        made._work.set()
        assert resting.wait(10)


def once(error: BaseException, then: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises this error at its first call."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise error
        return then(*args, **kwargs)

    return call


def start_in_the_context(thread: threading.Thread, start: Callable[..., None]) -> None:
    """Start it in a copy of the context, like Python 3.14 and libraries that replace `run`."""
    thread.run = partial(copy_context().run, thread.run)  # type: ignore[method-assign]
    start(thread)


@pytest.mark.parametrize("inherits", [False, True])
def test_thread_is_no_part_of_what_it_is_started_in(
    thread_writer: Writer, monkeypatch: pytest.MonkeyPatch, inherits: bool
) -> None:
    found: list[object] = []
    start = threading.Thread.start
    if inherits:
        monkeypatch.setattr(
            threading.Thread, "start", lambda thread: start_in_the_context(thread, start)
        )
    monkeypatch.setattr(
        rows, "write", lambda _: found.extend([recorder.current_run(), ANYTHING.get()])
    )
    token = ANYTHING.set("the task's")
    run = begin()
    thread_writer.submit(entry())
    assert thread_writer.flush(10)
    ANYTHING.reset(token)

    assert recorder.end("id-1") is run
    assert found == [None, "nothing"]


def test_thread_that_a_followed_thread_starts_belongs_to_no_run(
    thread_writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []
    monkeypatch.setattr(rows, "write", lambda _: found.append(recorder.current_run()))
    task = threading.Thread(target=thread_writer.submit, args=(entry(),))
    recorder.assign(task, begin())
    task.start()
    task.join()
    assert thread_writer.flush(10)

    assert found == [None]


def test_thread_that_is_killed_is_started_again_and_loses_nothing(
    thread_writer: Writer,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(background, "RESTART_INTERVAL", 0.0)
    monkeypatch.setattr(rows, "write", once(Killed("by somebody"), rows.write))
    thread_writer.submit(entry("1"))
    assert eventually(lambda: written == ["1"])
    thread_writer.submit(entry("2"))
    assert thread_writer.flush(10)

    assert written == ["1", "2"]
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
        "The thread systemtasks-writer had died and is started again: "
        f"{Killed.__module__}.Killed: by somebody"
    ]


@pytest.mark.parametrize("notice", ["submit", "watch", "flush", "start", "announce"])
def test_thread_that_never_began_is_started_again_by_whatever_comes_next(
    thread_writer: Writer,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    notice: str,
) -> None:
    """Simulate a library's wrapper of `Thread.run` that fails."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(background, "RESTART_INTERVAL", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "run", once(TypeError("run() takes 1"), lambda _: None))
        thread_writer.submit(entry("1"))
        assert eventually(lambda: not thread_writer._thread.is_alive)
    if notice == "submit":
        thread_writer.submit(entry("2"))
    elif notice == "watch":
        thread_writer.watch(begin())
    elif notice == "flush":
        assert thread_writer.flush(10)
    elif notice == "start":
        thread_writer.start()
    else:
        thread_writer.announce([])

    assert eventually(lambda: "1" in written)
    assert "had died and is started again: it is not known why" in caplog.text


def test_thread_that_keeps_dying_is_started_now_and_then(
    thread_writer: Writer, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "run", lambda thread: started.append(thread))
    for number in range(100):
        thread_writer.submit(entry(str(number)))
        assert eventually(lambda: not thread_writer._thread.is_alive)
    assert len(started) == 1
    thread_writer._thread._next_start = time.monotonic()
    thread_writer.submit(entry())

    assert len(started) == 2
    assert written == []
    # Otherwise the fixture would wait for it.
    assert eventually(lambda: not thread_writer._thread.is_alive)


def test_flush_does_not_wait_for_a_dead_thread(
    thread_writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading.Thread, "run", lambda _: None)
    thread_writer.submit(entry("1"))
    thread_writer.submit(entry("2"))
    begin = time.monotonic()

    assert not thread_writer.flush(60)
    assert time.monotonic() - begin < 30
    assert "The writer of task runs is dead: 2 task runs stay in the journal" in caplog.text


def missing_table(_: object) -> None:
    raise ProgrammingError("no such table") from UndefinedTable("no such table")


def test_flush_does_not_wait_for_tables_that_are_missing(
    thread_writer: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there = rows.write
    monkeypatch.setattr(rows, "write", missing_table)
    thread_writer.submit(entry())
    began = time.monotonic()

    assert not thread_writer.flush(30)
    assert time.monotonic() - began < 10
    assert "Tables are missing (migrate): 1 task runs stay in the journal" in caplog.text
    monkeypatch.setattr(rows, "write", there)


def test_flush_has_rows_written_at_once_when_the_tables_are_there(
    thread_writer: Writer, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = rows.write
    tries = []

    def write(records: list[RunRecord]) -> None:
        tries.append(records)
        missing_table(records)

    monkeypatch.setattr(rows, "write", write)
    thread_writer.submit(entry())
    assert eventually(lambda: len(tries) > 4)  # then it waits for seconds between two attempts
    monkeypatch.setattr(rows, "write", there)

    assert thread_writer.flush(30)
    assert len(written) == 1


def test_flush_does_not_wait_for_a_thread_that_dies_meanwhile(
    thread_writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: object) -> None:
        assert thread_writer._hurry.wait(10)  # which a flush sets
        raise Killed

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(rows, "write", die)
    thread_writer.submit(entry())
    begin = time.monotonic()

    assert not thread_writer.flush(60)
    assert time.monotonic() - begin < 30


def test_task_does_not_notice_that_no_thread_can_be_started(
    thread_writer: Writer,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(3):
            thread_writer.submit(entry(str(number)))
        run = begin()
        thread_writer.watch(run)
        thread_writer.unwatch(run)
        assert not thread_writer.flush(60)
    assert thread_writer.flush(10)

    assert written == ["0", "1", "2"]
    messages = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    failure = "The thread systemtasks-writer does not start: RuntimeError: can't start new thread"
    assert messages == [
        *(failure, failure),
        "The writer of task runs is dead: 3 task runs stay in the journal",
        "The thread systemtasks-writer had died and is started again: "
        "RuntimeError: can't start new thread",
    ]


def test_exit_that_somebody_asks_for_in_its_thread_does_not_end_it(
    thread_writer: Writer,
    written: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer_module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(rows, "write", once(SystemExit(3), rows.write))
    thread_writer.submit(entry("1"))

    assert thread_writer.flush(10)
    assert written == ["1"]
    assert "goes on after an error of its own" in caplog.text


def test_batch_whose_file_cannot_be_removed_is_written_once(
    thread_writer: Writer, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(writer_module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(thread_writer._pending, "done", fail)
    for number in range(3):
        thread_writer.submit(entry(str(number)))
        assert thread_writer.flush(10)

    assert written == ["0", "1", "2"]


IN_GEVENT = """
from gevent import monkey
monkey.patch_all()

import gc, sys, gevent, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["systemtasks"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}},
    SYSTEMTASKS={"JOURNAL_DIR": sys.argv[1]},
)
django.setup()
from systemtasks import background
from systemtasks.storage import rows, writer as module
from tests.systemtasks.entries import entry

written = []
rows.write = lambda records: written.extend(record.celery_id for record in records)
module.Writer._housekeep = lambda _: None
background.RESTART_INTERVAL = 0.0
writer = module.writer
for number in range(3):
    writer.submit(entry(str(number)))
    assert writer.flush(10)
    for one in gc.get_objects():
        run = getattr(one, "_run", None) if isinstance(one, gevent.Greenlet) else None
        if getattr(getattr(run, "__self__", None), "name", "") == "systemtasks-writer":
            one.kill()
print(written)
"""


@pytest.mark.slow
def test_greenlet_that_is_killed_is_started_again(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_GEVENT, str(tmp_path)],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.stdout == "['0', '1', '2']\n", ended.stderr
    again = "The thread systemtasks-writer had died and is started again: greenlet.GreenletExit"
    assert again in ended.stderr
