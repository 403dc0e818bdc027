"""Keep requests out of the transactions of ATOMIC_REQUESTS."""

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction


def without_transaction(view: Callable[..., Any]) -> Callable[..., Any]:
    """Exempt this view from ATOMIC_REQUESTS, on every database.

    In a transaction, a request that is refused would not be counted for its token's rate, and one
    that waits would keep the token's row locked.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
