"""Tasks in children that show errors only, and a task that configures logging again."""

import logging
import logging.config
import os
import time

from celery import chord, shared_task
from celery.signals import worker_process_init

from config.celery import app

if "RESULTS" in os.environ:
    app.conf.update(result_backend=os.environ["RESULTS"])

logger = logging.getLogger("shop.quiet")


@worker_process_init.connect
def show_errors_only(**_: object) -> None:
    for name in ("", "celery.task", "celery.redirected"):
        logging.getLogger(name).setLevel(logging.ERROR)


@shared_task(name="tests.configure_anew")
def configure_anew() -> None:
    logger.info("Before")
    logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})
    logger.warning("After")


@shared_task(name="tests.one_of_chord", ignore_result=False)
def one_of_chord() -> None:
    time.sleep(1.5)  # so that the task that polls, every second, finds it unfinished


@shared_task(name="tests.end_of_chord", ignore_result=False)
def end_of_chord(results: list[None]) -> None:
    pass


@shared_task(name="tests.send_chord")
def send_chord() -> None:
    chord([one_of_chord.si(), one_of_chord.si()])(end_of_chord.s())
