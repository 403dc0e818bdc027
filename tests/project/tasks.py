"""What the project does in the background."""

import logging

from celery import shared_task

logger = logging.getLogger(__name__)


@shared_task(name="project.greet")
def greet(name: str) -> None:
    """Say hello to somebody."""
    logger.info("Hello, %s", name)
