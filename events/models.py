"""The columns of a token that django-rest-knox's own model lacks."""

from django.db import models
from knox.settings import knox_settings

from systemtasks.fields import UTCDateTimeField


class TokenGrant(models.Model):
    """The permissions of a token, and the time of its last use.

    A token without a grant has all permissions of its user, and no limit.
    """

    token = models.OneToOneField(
        knox_settings.TOKEN_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="grant",
    )
    read_only = models.BooleanField(default=False, help_text="Allow GET only")
    rate = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests a minute; no limit if empty"
    )
    spent_until = UTCDateTimeField(
        null=True, editable=False, help_text="When the full rate is available again"
    )
    last_used = UTCDateTimeField(null=True, editable=False, help_text="To the minute")

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=models.Q(rate__isnull=True) | models.Q(rate__gte=1),
                name="tokengrant_rate",
            ),
        )

    def __str__(self) -> str:
        return f"grant of {self.token_id[:8]}"


def scope_text(grant: TokenGrant | None) -> str:
    """Return in words what a token with this grant allows. Pass None if it has no grant."""
    return "read only" if grant and grant.read_only else "all its user may"
