"""The shop's background tasks."""

import logging
from typing import Any

import structlog
from celery import shared_task

from orders.models import Order

log = structlog.get_logger(__name__)
logger = logging.getLogger(__name__)


class DeclinedError(Exception):
    """The bank does not pay."""


@shared_task
def charge(order_id: int, card_number: str = "") -> int:
    """Charge the customer's card."""
    order = Order.objects.get(pk=order_id)
    log.info("charging", order=order_id, amount=order.amount)
    if order.amount > 100:
        raise DeclinedError(f"{order.amount} is too much")
    Order.objects.filter(pk=order_id).update(is_paid=True)
    confirm.delay(order_id)
    return order.amount


@shared_task
def confirm(order_id: int) -> str:
    """Confirm the order by e-mail."""
    logger.warning("No mail server for order %d", order_id)
    return f"confirmed {order_id}"


@shared_task(bind=True, max_retries=2, autoretry_for=(ConnectionError,), retry_backoff=False)
def ship(self: Any, order_id: int) -> str:
    """Hand the order to the carrier, who answers at the second call."""
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("no carrier"), countdown=0)
    log.info("shipped", order=order_id)
    return f"shipped {order_id}"


@shared_task(ignore_result=True)
def clean_up() -> None:
    """Remove carts that nobody has paid for."""
    logger.info("Removed %d carts", 3)
