"""Tasks for the tests, each ending in another way; a worker loads them by `--include`."""

import asyncio
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Task, chord, shared_task
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils.functional import SimpleLazyObject

from systemtasks import reporting
from systemtasks.models import SystemTask

task_logger: logging.Logger = get_task_logger(__name__)
logger = logging.getLogger("shop")


@shared_task(name="tests.succeed")
def succeed(number: int = 0, *, label: str = "") -> int:
    """Say hello.

    And nothing else.
    """
    task_logger.info("Hello %d", number, extra={"label": label})
    logger.info("Hello from another logger")
    print("Hello from print")  # noqa: T201
    return number


@shared_task(name="tests.keep", bind=True)
def keep(self: Any, file: str, *args: Any, **kwargs: Any) -> None:
    """Write the arguments and headers that this run got to a file."""
    headers = {name: self.request.get(name) for name in ("tenant", "trace", "locale")}
    Path(file).write_text(repr((args, sorted(kwargs.items()), headers)))


@shared_task(name="tests.warn")
def warn() -> None:
    task_logger.warning("Careful")


@shared_task(base=Task, name="tests.pay", systemtasks_masked=["number"])
def pay(user: str, number: str = "", *, page: int = 0) -> str:
    task_logger.info("Charging %s for %s", number, user, extra={"seen": [number]})
    try:
        raise ConnectionError(f"{number} is refused")
    except ConnectionError as error:
        raise ValueError(f"postgres://bob:{number}@db is away") from error


@shared_task(base=Task, name="tests.unrecorded", systemtasks_record=False)
def unrecorded(number: str) -> None:
    task_logger.info("Hello %s", number)


class ShopError(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, order: int, reason: str) -> None:
        super().__init__(f"order {order}: {reason}")


@shared_task(name="tests.fail")
def fail() -> None:
    try:
        raise KeyError("order")  # as a dictionary does
    except KeyError as error:
        raise ShopError(7, "no such order") from error


@shared_task(bind=True, name="tests.retry", max_retries=5)
def retry(self: Any, until: int) -> str:
    task_logger.info("Attempt %d", self.request.retries + 1)
    if self.request.retries < until:
        raise self.retry(exc=ConnectionError("away"), countdown=0.05)
    return "done"


@shared_task(
    name="tests.give_up", autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=0
)
def give_up() -> None:
    raise ConnectionError("still away")


@shared_task(name="tests.ignore")
def ignore() -> None:
    raise Ignore


@shared_task(name="tests.reject")
def reject() -> None:
    raise Reject("not mine", requeue=False)


class DiesAfterwards(Task):  # type: ignore[type-arg]  # Celery 5.6 has none
    """A task whose process is killed after its success, before Celery knows of it."""

    def after_return(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=DiesAfterwards, name="tests.die_afterwards", ignore_result=False)
def die_afterwards() -> None:
    logger.info("Done")


@shared_task(name="tests.sleep_in_a_coroutine")
def sleep_in_a_coroutine(seconds: float) -> None:
    asyncio.run(asyncio.sleep(seconds))


class UnpicklableError(Exception):
    """An exception that pickle cannot take apart."""

    def __reduce__(self) -> str:
        raise TypeError("not for pickle")


@shared_task(name="tests.fail_unpicklable")
def fail_unpicklable() -> None:
    raise UnpicklableError("kept")


@shared_task(name="tests.requeue", bind=True, acks_late=True)
def requeue(self: Any, marker: str) -> None:
    """Put the message back the first time."""
    if not Path(marker).exists():
        Path(marker).touch()
        raise Reject("later", requeue=True)


@shared_task(name="tests.replace", bind=True)
def replaced(self: Any) -> None:
    raise self.replace(succeed.si(5))


@shared_task(name="tests.call")
def call() -> None:
    """Run another task within this one, as a function."""
    succeed(4)


@shared_task(name="tests.lose_child", bind=True, acks_late=True, reject_on_worker_lost=True)
def lose_child(self: Any, marker: str, seconds: float = 0) -> None:
    """Kill the process the first time, after so many seconds."""
    if not Path(marker).exists():
        Path(marker).touch()
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="tests.die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="tests.exit")
def leave() -> None:
    raise SystemExit(3)


@shared_task(name="tests.sleep")
def sleep(seconds: float) -> None:
    logger.info("Sleeping")
    time.sleep(seconds)


@shared_task(name="tests.chat")
def chat(number: int, lines: int) -> None:
    """Log many lines while others do the same."""
    for _ in range(lines):
        logger.info("I am %d", number)
        time.sleep(0.001)


@shared_task(base=Task, name="tests.never_expires", systemtasks_expires_after=None)
def never_expires() -> None:
    pass


@shared_task(base=Task, name="tests.short_lived", systemtasks_expires_after=timedelta(hours=1))
def short_lived() -> None:
    pass


@shared_task(name="tests.nest")
def nest() -> None:
    logger.info("Before")
    succeed.apply(args=(3,), task_id="inner")
    logger.info("After")


@shared_task(name="tests.start_threads")
def start_threads(number: int) -> None:
    """Log from the task's own thread and from its own pool."""
    thread = threading.Thread(target=logger.info, args=("Thread of %d", number))
    thread.start()
    thread.join()
    _executor.submit(logger.info, "Pool of %d", number).result()


_executor = ThreadPoolExecutor(1)


@shared_task(name="tests.go_to_thread", soft_time_limit=20)
def go_to_thread(number: int) -> None:
    """Log from a thread that a coroutine waits for."""
    asyncio.run(asyncio.to_thread(logger.info, "Coroutine's thread of %d", number))


@shared_task(bind=True, name="tests.retry_later", max_retries=1)
def retry_later(self: Any) -> None:
    raise self.retry(countdown=3600)


@shared_task(name="tests.report")
def report(slug: str) -> None:
    """Report everything that a task can report."""
    reporting.set_uid(slug)
    reporting.info("Begun", source=slug)
    for done in range(5):
        reporting.progress(done, 4)
    reporting.set_status("warning")


@shared_task(name="tests.log_lazily")
def log_lazily() -> int:
    """Log a queryset whose SQL would fail, within a transaction that goes on."""
    unusable = ContentType.objects.extra(where=["no_such_column = 1"])
    with transaction.atomic():
        logger.info("Looking", extra={"tasks": unusable, "nested": [{"tasks": unusable}]})
        reporting.info("Found", tasks=unusable, first=SimpleLazyObject(unusable.first))
        reporting.info(unusable)  # type: ignore[arg-type]
        reporting.set_uid(unusable)
        return SystemTask.objects.filter(name="tests.no_such_task").count()


@shared_task(name="tests.add_up")
def add_up(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="tests.send_a_chord")
def send_a_chord() -> None:
    chord([succeed.s(number) for number in range(3)])(add_up.s())


@shared_task(bind=True, name="tests.count")
def count(self: Any, seconds: float) -> None:
    """Report how far it is as Celery's documentation does, and go on for so many seconds."""
    self.update_state(state="PROGRESS", meta={"current": 7, "total": 10})
    time.sleep(seconds)


@shared_task(bind=True, name="tests.parent")
def parent(self: Any) -> None:
    succeed.delay(1)
