"""What is known of a token beside django-rest-knox's own columns."""

from django.db import models
from knox.settings import knox_settings


class TokenGrant(models.Model):
    """What a token may do, how often, and when it last did; a token without a row may do all."""

    token = models.OneToOneField(
        knox_settings.TOKEN_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="grant",
    )
    read_only = models.BooleanField(default=False, help_text="Whether it may only GET")
    rate = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests a minute; no bound where empty"
    )
    spent_until = models.DateTimeField(
        null=True, editable=False, help_text="When all that it was used for has been regained"
    )
    last_used = models.DateTimeField(null=True, editable=False, help_text="To the minute")

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=models.Q(rate__isnull=True) | models.Q(rate__gte=1),
                name="tokengrant_rate",
            ),
        )

    def __str__(self) -> str:
        return f"grant of {self.token_id[:8]}"


def reach(grant: TokenGrant | None) -> str:
    """How much a token with this grant may do, in words."""
    return "read only" if grant and grant.read_only else "all its user may"
