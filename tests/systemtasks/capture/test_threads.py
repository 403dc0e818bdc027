"""What a run's own threads log is the run's, and no other's."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from systemtasks.capture import logs, threads
from systemtasks.runs import recorder
from systemtasks.runs.recorder import Run
from systemtasks.states import State
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.runs.test_recorder import begin

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


def test_following_twice_wraps_nothing_twice() -> None:
    before = threading.Thread.start, ThreadPoolExecutor.submit
    threads.follow()

    assert (threading.Thread.start, ThreadPoolExecutor.submit) == before
    assert threading.Thread.start.__name__ == "start"
