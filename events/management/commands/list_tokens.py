"""List the tokens of the API."""

from datetime import datetime

from django.core.management.base import BaseCommand, CommandParser

from ...authentication import is_expired, token_model
from ...models import TokenGrant, scope_text
from ...tokens import TIME_FORMAT, user_named, utc_time

HEADINGS = ("KEY", "USER", "CREATED", "EXPIRES", "LAST USED", "GRANT")


class Command(BaseCommand):
    help = (
        "List the tokens of the API, oldest first. KEY is the beginning of a token, which "
        "revoke_token takes. The rest of a token is not stored."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "username", metavar="USER", nargs="?", help="list only this user's tokens"
        )

    def handle(self, *_: object, username: str | None, **__: object) -> None:
        tokens = token_model().objects.select_related("user", "grant").order_by("created", "digest")
        if username is not None:
            tokens = tokens.filter(user=user_named(username))
        rows = [
            (
                token.token_key,
                token.user.get_username() + ("" if token.user.is_active else " (inactive)"),
                _time(token.created),
                _time(token.expiry) + (" (expired)" if is_expired(token.expiry) else ""),
                *_grant(getattr(token, "grant", None)),
            )
            for token in tokens
        ]
        if not rows:
            self.stderr.write("There are no tokens.", style_func=str)
            return
        widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
        for row in (HEADINGS, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())


def _time(time: datetime | None) -> str:
    return f"{utc_time(time):{TIME_FORMAT}}" if time else "never"


def _grant(grant: TokenGrant | None) -> tuple[str, str]:
    """Return when the token was last used, and what it allows."""
    rate = f", {grant.rate} a minute" if grant and grant.rate else ""
    return _time(grant.last_used if grant else None), scope_text(grant) + rate
