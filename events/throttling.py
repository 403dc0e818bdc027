"""Limit how often a token may be used, exactly, however many processes serve the API."""

import math
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Greatest, Now
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from events.models import TokenGrant

MINUTE = timedelta(minutes=1)


class TokenThrottle(BaseThrottle):
    """Allow as many requests a minute as the token's grant says, at once or spread out.

    This is the generic cell rate algorithm (ITU-T I.371). At a rate of N, each request costs an Nth
    of a minute, and at most a whole minute may be spent in advance. A request takes one UPDATE, or
    none if its token has no rate.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the request, and return True if it is allowed; a refused one costs nothing."""
        token: Any = request.auth
        self.rate: int | None = getattr(token, "rate", None)
        if self.rate is None:
            return True
        self.grant = TokenGrant.objects.filter(pk=token.digest)
        cost = MINUTE / self.rate
        affordable = Q(spent_until__isnull=True) | Q(spent_until__lte=Now() + (MINUTE - cost))
        spent = Greatest("spent_until", Now()) + cost  # Postgres's GREATEST ignores NULL
        return self.grant.filter(affordable).update(spent_until=spent) == 1

    def wait(self) -> float | None:
        """Return the seconds until a request is allowed again, at least 1; None without a rate."""
        if self.rate is None:
            return None
        spent_until = self.grant.values_list("spent_until", flat=True).first()
        if spent_until is None:
            return 1
        left = spent_until - timezone.now() - (MINUTE - MINUTE / self.rate)
        return max(math.ceil(left.total_seconds()), 1)
