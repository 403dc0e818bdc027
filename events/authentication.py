"""Who asks: the bearer of a token that only its holder knows, since the database keeps its hash."""

import re
from hmac import compare_digest

from django.contrib.auth.models import AbstractBaseUser
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AbstractAuthToken, get_token_model
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

# RFC 6750, section 2.1; the scheme is case-insensitive by RFC 9110, section 11.1.
CREDENTIALS = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")


class BearerAuthentication(TokenAuthentication):
    """`Authorization: Bearer <token>`, with django-rest-knox's tokens.

    Unlike knox's own class it asks the database once and deletes nothing: an expired token stays
    for `list_tokens` to show. The details of its refusals are authentik's.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, AbstractAuthToken] | None:
        """The user and the token; None where there is no Authorization header.

        Raises AuthenticationFailed for every header but a good one.
        """
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, *_ = header.split(maxsplit=1) or [""]
        if not (match := CREDENTIALS.fullmatch(header.strip(" \t"))):
            other = scheme and scheme.lower() != "bearer"
            raise AuthenticationFailed(
                "Unsupported authentication type" if other else "Malformed header"
            )
        return self.authenticate_credentials(match[1])

    def authenticate_credentials(self, token: str) -> tuple[AbstractBaseUser, AbstractAuthToken]:
        """The user and the stored token; raises AuthenticationFailed where there is none."""
        digest = hash_token(token)
        candidates = token_model().objects.select_related("user")
        for candidate in candidates.filter(token_key=token[: CONSTANTS.TOKEN_KEY_LENGTH]):
            if compare_digest(digest, candidate.digest) and not expired(candidate):
                if not candidate.user.is_active:
                    raise AuthenticationFailed("User inactive")
                return candidate.user, candidate
        raise AuthenticationFailed("Token invalid/expired")

    def authenticate_header(self, request: Request) -> str:
        """No `WWW-Authenticate`, for which DRF answers 403 where it would answer 401."""
        return ""


def token_model() -> "type[AbstractAuthToken]":
    """The project's model of tokens: knox's own, or the one that KNOX_TOKEN_MODEL names."""
    model: type[AbstractAuthToken] = get_token_model()
    return model


def expired(token: AbstractAuthToken) -> bool:
    """Whether the token's time is over."""
    return token.expiry is not None and token.expiry <= timezone.now()
