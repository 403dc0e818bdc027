"""Define demo tasks, one for each outcome. They are scheduled if DEMO_TASKS is true."""

import logging
import time
from random import choice, randint
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger

from config.celery import app

logger: logging.Logger = get_task_logger(__name__)

SCHEDULE = {
    "demo.clean_sessions": 10.0,
    "demo.sync_directory": 20.0,
    "demo.check_certificates": 30.0,
    "demo.charge_card": 45.0,
    "demo.nightly_report": 60.0,
}
app.conf.beat_schedule = {
    name: {"task": name, "schedule": seconds} for name, seconds in SCHEDULE.items()
}


@shared_task(name="demo.clean_sessions")
def clean_sessions() -> int:
    """Remove the sessions that have expired."""
    removed = randint(0, 40)  # noqa: S311 - a demonstration, not a secret
    logger.info("Removed %d expired sessions", removed, extra={"removed": removed})
    return removed


@shared_task(name="demo.check_certificates")
def check_certificates() -> None:
    """Look for certificates that expire soon."""
    logger.info("Checked 12 certificates")
    logger.warning("A certificate expires soon", extra={"host": "intranet", "days_left": 6})


@shared_task(name="demo.charge_card")
def charge_card(order: int = 4711) -> None:
    """Charge a card that the bank refuses."""
    logger.info("Charging the card of order %d", order)
    raise PermissionError(f"The bank refuses order {order}: card expired")


@shared_task(
    bind=True, name="demo.sync_directory", autoretry_for=(ConnectionError,), default_retry_delay=2
)
def sync_directory(self: Any) -> None:  # noqa: ANN401 - a Celery task
    """Fetch the users of a directory, which answers at the second attempt."""
    logger.info("Connecting to %s", choice(["ldap-1", "ldap-2"]))  # noqa: S311
    if self.request.retries == 0:
        raise ConnectionError("The directory does not answer")
    logger.info("Fetched 250 users", extra={"new": 3, "changed": 17})


@shared_task(name="demo.nightly_report")
def nightly_report() -> None:
    """Add up the day's figures, step by step.

    It takes a few seconds, and logs its progress.
    """
    steps = ("orders", "refunds", "stock", "summary")
    for number, step in enumerate(steps, start=1):
        time.sleep(1.5)
        logger.info("%s done", step.capitalize(), extra={"step": number, "of": len(steps)})
