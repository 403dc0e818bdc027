"""Limit how often a token may be used, and how often an address may send a wrong one."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Greatest, Now
from knox.crypto import hash_token
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from systemtasks.conf import conf

from .models import TokenGrant
from .rates import Rates

MINUTE = timedelta(minutes=1)

token_rates = Rates()
"""The rates of tokens without a rate of their own, by digest."""


class TokenThrottle(BaseThrottle):
    """Allow the number of requests a minute in the token's grant, at once or spread out.

    This is the generic cell rate algorithm (ITU-T I.371). At a rate of N, each request costs an Nth
    of a minute, and at most a whole minute may be spent in advance. A request takes one UPDATE, so
    that the rate is exact over any number of processes. A token without a rate has the one of
    TOKEN_RATE, which each process counts by itself, without a query.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the request, and return True if it is allowed. A refused one costs nothing."""
        token: Any = request.auth
        self.rate: int | None = getattr(token, "rate", None)
        if self.rate is None:
            self.seconds = _spend_default_rate(token)
            return not self.seconds
        self.grant = TokenGrant.objects.filter(pk=token.digest)
        cost = MINUTE / self.rate
        affordable = Q(spent_until__isnull=True) | Q(spent_until__lte=Now() + (MINUTE - cost))
        spent = Greatest("spent_until", Now()) + cost  # Postgres's GREATEST ignores NULL
        return self.grant.filter(affordable).update(spent_until=spent) == 1

    def wait(self) -> float | None:
        """Return the seconds until a request is allowed again, at least 1."""
        if self.rate is None:
            return math.ceil(self.seconds)
        spent_until = self.grant.values_list("spent_until", flat=True).first()
        if spent_until is None:
            return 1
        left = spent_until - datetime.now(UTC) - (MINUTE - MINUTE / self.rate)
        return max(math.ceil(left.total_seconds()), 1)


def _spend_default_rate(token: Any) -> float:  # noqa: ANN401 - of any authentication class
    """Count a request of a token without a rate. Return the seconds to wait, or 0."""
    digest, rate = getattr(token, "digest", None), conf().TOKEN_RATE
    return token_rates.spend(digest, rate) if digest and rate else 0.0


class WrongTokens:
    """Counts the wrong tokens of each address, each of which costs a query.

    If an address has sent too many, its tokens are no longer looked up in the database. Tokens that
    were right before still are: a client that shares the address, as behind a proxy, is not
    blocked by another one's mistake.
    """

    def __init__(self) -> None:
        self._rates = Rates()
        self._accepted: set[str] = set()  # digests, no more than there are tokens

    def clear(self) -> None:
        """Forget all tokens."""
        self._rates.clear()
        self._accepted.clear()

    def check(self, client: str, token: str) -> None:
        """Raise Throttled if the client has sent too many wrong tokens to ask about this one."""
        rate = conf().WRONG_TOKEN_RATE
        if not rate or not (seconds := self._rates.wait(client, rate)):
            return
        if hash_token(token) not in self._accepted:
            raise Throttled(math.ceil(seconds))

    def accept(self, digest: str) -> None:
        """Remember that the token with this digest was right."""
        self._accepted.add(digest)

    def count(self, client: str) -> None:
        """Count a wrong token. Raise Throttled if it is one too many."""
        if (rate := conf().WRONG_TOKEN_RATE) and (seconds := self._rates.spend(client, rate)):
            raise Throttled(math.ceil(seconds))


wrong_tokens = WrongTokens()
"""The wrong tokens that this process has counted."""
