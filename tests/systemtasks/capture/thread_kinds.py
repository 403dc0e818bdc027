"""Make runs that log from threads, each run from another kind of thread.

This module runs in its own process. Its arguments are the libraries to install, in this order:
`sentry`, `opentelemetry` and `systemtasks`. `gevent` means that `python -m gevent.monkey` has
patched everything already.

It prints JSON: the record of each run, the traces of its functions, and the errors.
"""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any
from uuid import uuid4

import django
import sentry_sdk
from django.conf import settings
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from systemtasks.capture import logs, threads
from systemtasks.runs import recorder
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.recorder import Run
from systemtasks.runs.records import TaskInfo
from systemtasks.states import State

TIMEOUT = 20
"""Seconds that a thread may take."""

logger = logging.getLogger("shop")
seen: dict[str, list[str]] = {}
"""The traces that the function was in, by the text that it logged."""
in_trace: dict[str, list[bool]] = {}
"""True for each library if the function was in the run's trace, by the text that it logged."""
errors: list[str] = []


def install(name: str) -> None:
    if name == "sentry":
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            traces_sample_rate=1.0,
            before_send=lambda *_: None,
            before_send_transaction=lambda *_: None,
        )
    elif name == "opentelemetry":
        trace.set_tracer_provider(TracerProvider())
        ThreadingInstrumentor().instrument()
    elif name == "systemtasks":
        logs.install()
        threads.follow()


def say(text: str, *_: object) -> str:
    logger.info(text)
    seen[text] = traces()
    return text


def traces() -> list[str]:
    """Return the current traces of Sentry and of OpenTelemetry."""
    sentry = sentry_sdk.get_traceparent() or ""
    return [sentry.partition("-")[0], str(trace.get_current_span().get_span_context().trace_id)]


def started(thread: threading.Thread) -> None:
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


class Overriding(threading.Thread):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def run(self) -> None:
        say(self.text)


class Starting(Overriding):
    def start(self) -> None:
        super().start()


class OfItsOwn:
    """A callable object without a name."""

    def __call__(self, text: str) -> str:
        return say(text)


def thread(text: str) -> None:
    started(threading.Thread(target=say, args=(text,)))


def timer(text: str) -> None:
    started(threading.Timer(0.001, say, [text]))


def overridden_run(text: str) -> None:
    started(Overriding(text))


def overridden_start(text: str) -> None:
    started(Starting(text))


def run_of_the_instance(text: str) -> None:
    made = threading.Thread()
    made.run = partial(say, text)  # type: ignore[assignment, method-assign]
    started(made)


def thread_of_a_thread(text: str) -> None:
    started(threading.Thread(target=thread, args=(text,)))


def timer_of_a_pool(text: str) -> None:
    pool.submit(timer, text).result(TIMEOUT)


def executor(text: str) -> None:
    assert pool.submit(say, text).result(TIMEOUT) == text


def executor_of_an_object(text: str) -> None:
    assert pool.submit(OfItsOwn(), text).result(TIMEOUT) == text


def executor_of_a_context(text: str) -> None:
    assert pool.submit(copy_context().run, say, text).result(TIMEOUT) == text


def executor_of_its_own(text: str) -> None:
    with ThreadPoolExecutor(2) as own:
        assert [*own.map(say, [text])] == [text]


def executor_of_a_thread(text: str) -> None:
    started(threading.Thread(target=executor, args=(text,)))


def thread_pool(text: str) -> None:
    assert other_pool.map(say, [text]) == [text]
    assert other_pool.apply(len, ([text],)) == 1


def thread_pool_of_an_iterator(text: str) -> None:
    assert [*other_pool.imap(str, (say(one) for one in [text]))] == [text]


def thread_pool_callback(text: str) -> None:
    other_pool.apply_async(str, (text,), callback=say).wait(TIMEOUT)


def thread_pool_of_its_own(text: str) -> None:
    with ThreadPool(2) as own:
        assert own.starmap(say, [(text, 1)]) == [text]


def to_thread(text: str) -> None:
    assert asyncio.run(asyncio.wait_for(asyncio.to_thread(say, text), TIMEOUT)) == text


def to_thread_of_a_thread(text: str) -> None:
    started(threading.Thread(target=to_thread, args=(text,)))


def run_in_executor(text: str) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(None, str, text)
        return await loop.run_in_executor(pool, say, first)

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT)) == text


KINDS: dict[str, Callable[[str], None]] = {
    function.__name__: function
    for function in (
        *(thread, timer, overridden_run, overridden_start, run_of_the_instance),
        *(thread_of_a_thread, timer_of_a_pool),
        *(executor, executor_of_an_object, executor_of_a_context, executor_of_its_own),
        *(executor_of_a_thread, thread_pool, thread_pool_of_an_iterator, thread_pool_callback),
        *(thread_pool_of_its_own, to_thread, to_thread_of_a_thread, run_in_executor),
    )
}
OF_ASYNCIO = {"to_thread", "to_thread_of_a_thread", "run_in_executor"}
"""With gevent, a coroutine that runs in one greenlet seems to run in all of the process."""
TIMERS = {"timer", "timer_of_a_pool"}
"""With gevent and OpenTelemetry, a timer runs nothing, with or without other libraries."""


def run_of(name: str, function: Callable[[str], Any], *texts: str) -> list[str]:
    """Call the function with each of the texts in a run, and return the recorded events."""
    run = recorder.start(
        Run(TaskInfo("shop.charge"), {"id": name}, Arguments(None, None), str(uuid4()))
    )
    try:
        with (
            sentry_sdk.isolation_scope(),
            sentry_sdk.start_transaction(name=name),
            trace.get_tracer("shop").start_as_current_span(name),
        ):
            mine = traces()
            for text in texts:
                function(text)
    except BaseException as error:  # noqa: BLE001 - all of them are reported
        errors.append(f"{name}: {error!r}")
        return []
    finally:
        recorder.end(name)
    for text in texts:
        in_trace[text] = [found == own for found, own in zip(seen[text], mine, strict=True)]
    record = run.finish(State.SUCCESS).record()
    return [message["event"] for message in json.loads(record.messages)]


def at_once(kinds: list[str]) -> dict[str, list[str]]:
    """Make runs in two threads that share the pools, and return the recorded events by run."""
    told: dict[str, list[str]] = {}

    def work(number: int) -> None:
        for kind in kinds:
            name = f"{kind} {number}"
            texts = [f"{name} {time}" for time in range(5)]
            told[name] = run_of(name, KINDS[kind], *texts)

    both = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    return told


def main(*names: str) -> None:
    settings.configure(
        INSTALLED_APPS=["systemtasks"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}},
    )
    django.setup()
    logger.setLevel(logging.INFO)
    threading.excepthook = lambda args: errors.append(repr(args.exc_value))
    for name in names:
        install(name)
    # The pools' threads start in a run, and live longer.
    first = run_of("first", make_pools, "first")
    kinds = [*KINDS]
    if {"gevent", "opentelemetry"} <= {*names}:
        kinds = [kind for kind in kinds if kind not in TIMERS]
    said = {kind: run_of(kind, KINDS[kind], kind) for kind in kinds}
    if "gevent" in names:
        kinds = [kind for kind in kinds if kind not in OF_ASYNCIO]
    together = at_once(kinds)
    thread("nobody's")
    result = {"first": first, "said": said, "together": together}
    print(json.dumps({**result, "in_trace": in_trace, "errors": errors}))  # noqa: T201


pool: ThreadPoolExecutor
other_pool: ThreadPool


def make_pools(text: str) -> None:
    global pool, other_pool
    pool, other_pool = ThreadPoolExecutor(1), ThreadPool(1)
    executor(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
