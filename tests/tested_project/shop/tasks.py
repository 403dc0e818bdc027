import logging

from celery import shared_task

logger = logging.getLogger(__name__)


@shared_task
def charge(amount: int) -> int:
    """Charge twice."""
    logger.warning("Charging %d", amount)
    return 2 * amount
