"""How often a token may be used: as its grant says, exactly, however many processes serve."""

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
    """Lets a token's `rate` pass in a minute, all at once or evenly; the rest are 429.

    The generic cell rate algorithm (ITU-T I.371): each request spends a share of the minute, and a
    whole minute may be spent ahead. It is one UPDATE, and none for a token without a rate.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Whether this request may pass, which is then counted."""
        bearer: Any = request.auth
        self.rate: int | None = getattr(bearer, "rate", None)
        if self.rate is None:
            return True
        self.grant = TokenGrant.objects.filter(pk=bearer.digest)
        share = MINUTE / self.rate
        ahead = Q(spent_until__isnull=True) | Q(spent_until__lte=Now() + (MINUTE - share))
        spent = Greatest("spent_until", Now()) + share  # Postgres's GREATEST leaves out NULL
        return self.grant.filter(ahead).update(spent_until=spent) == 1

    def wait(self) -> float | None:
        """Seconds until the next request may pass, at least 1."""
        if self.rate is None:
            return None
        spent_until = self.grant.values_list("spent_until", flat=True).first()
        if spent_until is None:
            return 1
        left = spent_until - timezone.now() - (MINUTE - MINUTE / self.rate)
        return max(math.ceil(left.total_seconds()), 1)
