"""The records of a run's own threads belong to that run only."""

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from multiprocessing.pool import Pool, ThreadPool
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.worker import BackgroundWorker

from systemtasks import reporting
from systemtasks.capture import logs, threads
from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run
from systemtasks.states import State
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.runs.test_recorder import begin
from tests.waiting import eventually

logger = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def _follow() -> Iterator[None]:
    logger.setLevel(logging.INFO)
    logs.install()
    threads.follow()
    yield
    recorder.current.set(None)


def said(run: Run) -> list[str]:
    recorder.end(run.celery_id)
    return events(run.finish(State.SUCCESS).record())


def in_a_thread(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def test_thread_belongs_to_the_run_that_starts_it() -> None:
    run = begin()
    in_a_thread(threading.Thread(target=logger.info, args=("From a thread",)))
    in_a_thread(threading.Timer(0, logger.info, ["From a timer"]))

    assert said(run) == ["From a thread", "From a timer"]


def test_thread_of_a_thread_belongs_to_the_run() -> None:
    run = begin()
    inner = threading.Thread(target=logger.info, args=("From within",))
    in_a_thread(threading.Thread(target=in_a_thread, args=(inner,)))

    assert said(run) == ["From within"]


def test_class_of_its_own_belongs_to_the_run() -> None:
    class Own(threading.Thread):
        def run(self) -> None:
            logger.info("From %s", self.name)

    run = begin()
    in_a_thread(Own(name="own"))

    assert said(run) == ["From own"]


def test_thread_that_is_started_outside_belongs_to_none() -> None:
    run = begin()
    recorder.current.set(None)
    in_a_thread(threading.Thread(target=logger.info, args=("Nobody's",)))
    recorder.current.set(run)

    assert said(run) == []


def test_pools_threads_outlive_a_run_and_serve_the_next() -> None:
    with ThreadPoolExecutor(1) as pool:
        first = begin(id="first")
        pool.submit(logger.info, "First").result()
        assert said(first) == ["First"]
        second = begin(id="second")
        pool.submit(logger.info, "Second").result()
        list(pool.map(logger.info, ["Second again"]))
        assert said(second) == ["Second", "Second again"]
        assert pool.submit(recorder.current.get).result() is None


def test_what_waits_in_a_pool_belongs_to_the_run_that_submitted_it() -> None:
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go_on.wait, 10)
        outer = begin(id="outer")
        of_outer = pool.submit(logger.info, "Outer")
        inner = begin(id="inner", nested=True)
        of_inner = pool.submit(logger.info, "Inner")
        go_on.set()
        of_outer.result()
        of_inner.result()
        assert said(inner) == ["Inner"]
        assert recorder.current.get() is outer
        assert said(outer) == ["Outer"]


def test_pool_returns_and_raises_what_the_function_does() -> None:
    begin()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        assert pool.submit(sorted, [1, 2], reverse=True).result() == [2, 1]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()


def test_asyncio_hands_the_run_to_its_threads() -> None:
    async def main() -> None:
        await asyncio.to_thread(logger.info, "To thread")
        await asyncio.get_running_loop().run_in_executor(None, logger.info, "In executor")

    run = begin()
    asyncio.run(main())

    assert said(run) == ["To thread", "In executor"]


def test_thread_that_outlives_its_run_says_no_more_to_it_and_nothing_to_the_next() -> None:
    go_on = threading.Event()

    def late() -> None:
        assert go_on.wait(10)
        logger.info("Late")

    first = begin(id="first")
    thread = threading.Thread(target=late)
    thread.start()
    logger.info("In time")
    recorder.end("first")
    record = first.finish(State.SUCCESS).record()
    second = begin(id="second")
    go_on.set()
    thread.join()

    assert events(record) == ["In time"]
    assert said(first) == ["In time"]
    assert said(second) == []


def test_task_within_a_thread_belongs_to_the_run_of_the_thread() -> None:
    def work() -> None:
        inner.append(begin(id="inner", nested=True))
        logger.info("Inner")
        recorder.end("inner")
        logger.info("Outer")

    inner: list[Run] = []
    run = begin(id="outer")
    in_a_thread(threading.Thread(target=work))

    assert inner[0].outer is run
    assert said(inner[0]) == ["Inner"]
    assert said(run) == ["Outer"]


def test_what_a_thread_says_of_its_run_is_its_runs() -> None:
    run = begin()
    in_a_thread(threading.Thread(target=reporting.set_uid, args=("ldap",)))

    assert run.uid == "ldap"


def test_nothing_of_a_thread_is_replaced() -> None:
    begin()
    thread = threading.Thread(target=logger.info, args=("Hello",))
    before = thread.run
    in_a_thread(thread)

    assert thread.run == before
    assert "run" not in vars(thread)


def test_thread_that_is_started_twice_stays_with_its_first_run() -> None:
    go_on = threading.Event()

    def work() -> None:
        assert go_on.wait(10)
        logger.info("First")

    first = begin(id="first")
    thread = threading.Thread(target=work)
    thread.start()
    second = begin(id="second")
    with pytest.raises(RuntimeError):
        thread.start()
    go_on.set()
    thread.join()

    assert said(second) == []
    assert said(first) == ["First"]


def test_thread_that_could_not_start_belongs_to_where_it_is_started_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = begin(id="first")
    thread = threading.Thread(target=logger.info, args=("At last",))
    with monkeypatch.context() as patch:
        patch.setattr(threading, "_start_new_thread", refuse, raising=False)
        patch.setattr(threading, "_start_joinable_thread", refuse, raising=False)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
    second = begin(id="second")
    in_a_thread(thread)

    assert said(second) == ["At last"]
    assert said(first) == []


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("can't start new thread")


def test_long_lived_thread_keeps_no_run_alive() -> None:
    go_on = threading.Event()
    reference = weakref.ref(begin(id="first"))
    thread = threading.Thread(target=go_on.wait, args=(10,))
    thread.start()
    recorder.end("first")
    recorder.end(begin(id="second").celery_id)
    gc.collect()
    gone = reference() is None
    go_on.set()
    thread.join()

    assert gone


@pytest.mark.parametrize("name", ["current_run", "assign"])
def test_failure_of_ours_keeps_nothing_from_starting(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("ours")

    begin()
    done: list[int] = []
    monkeypatch.setattr(recorder, name, fail)
    in_a_thread(threading.Thread(target=done.append, args=(1,)))
    with ThreadPoolExecutor(1) as pool:
        if name == "current_run":
            pool.submit(done.append, 2).result(10)
    with ThreadPool(1) as other:
        if name == "current_run":
            other.map(done.append, [3])
    monkeypatch.undo()

    assert done == ([1, 2, 3] if name == "current_run" else [1])


def test_soft_time_limit_that_comes_while_a_thread_is_started_reaches_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    run = begin()
    monkeypatch.setattr(recorder, "assign", interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        threading.Thread(target=print).start()

    assert recorder.current.get() is run


def test_what_interrupts_a_submission_leaves_the_run_current() -> None:
    run = begin()
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(print)

    assert recorder.current.get() is run


def test_call_that_makes_no_sense_raises_what_it_always_does() -> None:
    begin()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            pool.submit(None).result(10)  # type: ignore[arg-type]


def test_functions_and_callbacks_by_name_belong_to_the_run() -> None:
    run = begin()
    with ThreadPool(1) as pool:
        pool.apply_async(func=logger.info, args=("Done",), callback=lambda _: logger.info("Back"))
        pool.close()
        pool.join()

    assert said(run) == ["Done", "Back"]


def test_thread_pool_that_a_run_made_serves_the_next_run_and_nobody() -> None:
    first = begin(id="first")
    with ThreadPool(1) as pool:
        pool.map(logger.info, ["First"])
        second = begin(id="second")
        pool.map(logger.info, ["Second"])
        recorder.current.set(None)
        pool.map(logger.info, ["Nobody's"])

    assert [events(run.finish(State.SUCCESS).record()) for run in (first, second)] == [
        ["First"],
        ["Second"],
    ]


def test_threads_of_an_observer_serve_no_run_in_particular() -> None:
    found: dict[str, Run | None] = {}

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            found[spans[0].name] = recorder.current_run()
            return SpanExportResult.SUCCESS

    begin()
    sentry, provider = BackgroundWorker(), TracerProvider(shutdown_on_exit=False)
    sentry.submit(lambda: found.update(sentry=recorder.current_run()))
    provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=1))
    provider.get_tracer("shop").start_span("opentelemetry").end()
    assert eventually(lambda: len(found) == 2)
    recorder.current.set(None)
    sentry.kill()
    provider.shutdown()

    assert found == {"sentry": None, "opentelemetry": None}


# The wrapped methods.


@pytest.fixture
def not_followed() -> Iterator[None]:
    threads.unfollow()
    yield
    threads.unfollow()


METHODS = [(threading.Thread, "start"), (ThreadPoolExecutor, "submit"), (ThreadPool, "map")]


def test_following_twice_wraps_nothing_twice() -> None:
    before = [getattr(owner, name) for owner, name in METHODS]
    threads.follow()

    assert [getattr(owner, name) for owner, name in METHODS] == before
    assert threading.Thread.start.__name__ == "start"


@pytest.mark.usefixtures("not_followed")
def test_all_is_as_before_when_threads_are_followed_no_more() -> None:
    owners = (threading.Thread, threading.Timer, ThreadPoolExecutor, ThreadPool)
    before = [dict(vars(owner)) for owner in owners]
    threads.follow()
    during = [dict(vars(owner)) for owner in owners]
    threads.unfollow()

    assert during != before
    assert [dict(vars(owner)) for owner in owners] == before


@pytest.mark.usefixtures("not_followed")
def test_wrapper_that_was_wrapped_stays_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.follow()
    ours = threading.Thread.start
    calls: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        calls.append(thread)
        ours(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        threads.unfollow()
        run = begin()
        in_a_thread(threading.Thread(target=logger.info, args=("Not followed",)))
        threads.follow()
        in_a_thread(threading.Thread(target=logger.info, args=("Followed",)))

        assert threading.Thread.start is start
    assert len(calls) == 2
    assert said(run) == ["Followed"]


@pytest.mark.usefixtures("not_followed")
def test_methods_that_others_unwrapped_are_wrapped_again() -> None:
    original = threading.Thread.start
    threads.follow()
    threading.Thread.start = original  # type: ignore[method-assign]
    threads.follow()
    run = begin()
    in_a_thread(threading.Thread(target=logger.info, args=("Followed",)))

    assert said(run) == ["Followed"]


def test_what_others_wrap_later_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """ThreadPool has these methods from Pool, where others may wrap them."""
    calls: list[str] = []
    original = Pool.map

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append("map")
        return original(*args, **kwargs)

    monkeypatch.setattr(Pool, "map", wrapped)
    run = begin()
    with ThreadPool(1) as pool:
        pool.map(logger.info, ["Hello"])

    assert calls == ["map"]
    assert said(run) == ["Hello"]


@pytest.mark.usefixtures("not_followed")
def test_function_for_an_interpreter_of_its_own_is_handed_over_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InterpreterPoolExecutor(ThreadPoolExecutor):
        """Simulates the class of Python 3.14, which pickles the submitted functions."""

    module = SimpleNamespace(InterpreterPoolExecutor=InterpreterPoolExecutor)
    monkeypatch.setitem(sys.modules, "concurrent.futures.interpreter", module)
    submitted: list[object] = []
    monkeypatch.setattr(
        ThreadPoolExecutor, "submit", lambda _, function: submitted.append(function)
    )
    threads.follow()
    begin()
    for executor in (InterpreterPoolExecutor(1), ThreadPoolExecutor(1)):
        executor.submit(print)
    threads.unfollow()

    assert submitted[0] is print
    assert submitted[1] is not print


@pytest.mark.usefixtures("not_followed")
def test_start_is_left_alone_where_python_hands_on_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulate Python 3.14's `thread_inherit_context`."""
    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        thread.run = partial(copy_context().run, thread.run)  # type: ignore[method-assign]
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    flags = SimpleNamespace(thread_inherit_context=1)
    monkeypatch.setattr(threads, "sys", SimpleNamespace(flags=flags, modules=sys.modules))
    threads.follow()
    assert threading.Thread.start is start

    first = begin(id="first")
    in_a_thread(threading.Thread(target=logger.info, args=("Thread",)))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(logger.info, "Pool").result(10)
        second = begin(id="second")
        pool.submit(logger.info, "Second").result(10)
        recorder.current.set(None)
        pool.submit(logger.info, "Nobody's").result(10)

    assert events(first.finish(State.SUCCESS).record()) == ["Thread", "Pool"]
    assert events(second.finish(State.SUCCESS).record()) == ["Second"]
