"""Revoke tokens of the API."""

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from knox.crypto import hash_token
from knox.models import AbstractAuthToken

from ...authentication import token_model
from ...tokens import user_named

SHOWN = 8  # characters


class Command(BaseCommand):
    help = "Revoke tokens of the API. If one of those named is unknown, none is revoked."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "keys",
            metavar="KEY",
            nargs="*",
            help="the beginning of a token, as list_tokens shows it, or the whole token",
        )
        parser.add_argument("--user", metavar="USER", help="revoke all of this user's tokens")

    def handle(self, *_: object, keys: list[str], user: str | None, **__: object) -> None:
        if not keys and user is None:
            raise CommandError("Name a KEY from list_tokens, or a --user.")
        tokens = token_model().objects.select_related("user")
        found: dict[str, AbstractAuthToken] = {}
        for key in keys:
            named = Q(token_key=key) | Q(digest=hash_token(key))
            matches = {token.pk: token for token in tokens.filter(named)}
            if not matches:
                raise CommandError(f"There is no token {_shown(key)!r}; nothing was revoked.")
            found |= matches
        if user is not None:
            found |= {token.pk: token for token in tokens.filter(user=user_named(user))}
        for token in found.values():
            token.delete()
            self.stdout.write(f"Revoked {token.token_key} of {token.user.get_username()}.")
        if not found:
            self.stderr.write(f"{user} has no tokens.", style_func=str)


def _shown(key: str) -> str:
    """Return the key, cut so that a whole token does not appear in an error."""
    return key if len(key) <= SHOWN else f"{key[:SHOWN]}…"
