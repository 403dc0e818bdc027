"""Who asks: the bearer of a token that only its holder knows, since the database keeps its hash."""

import re
from datetime import datetime
from functools import cache
from hmac import compare_digest
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, OuterRef, QuerySet, Value
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AbstractAuthToken, get_token_model
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from events.backends import OneQueryModelBackend, permissions_of
from events.prepared import Row, prepared
from events.usage import usage

# RFC 6750, section 2.1; the scheme is case-insensitive by RFC 9110, section 11.1.
CREDENTIALS = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")


class Bearer(NamedTuple):
    """What is known of a token that was presented, as `request.auth`."""

    digest: str
    """The token's hash, which is its primary key."""
    expiry: datetime | None
    read_only: bool
    """Whether it may only read."""
    rate: int | None
    """Requests a minute; None where there is no bound."""


@cache
def _user_columns() -> list[str]:
    """Return the columns of a user that are read, in the model's order.

    Django loads the others where somebody asks for them.
    """
    model: Any = get_user_model()
    names = {model._meta.pk.name, model.USERNAME_FIELD, "is_active", "is_superuser"}
    return [field.attname for field in model._meta.concrete_fields if field.name in names]


@prepared
def read_tokens(key: Value) -> "QuerySet[AbstractAuthToken, Any]":
    """Return the tokens that begin so, with their grants and their users.

    And with what each user may do, if the backend that is asked for it can be given that.
    """
    one_query = f"{OneQueryModelBackend.__module__}.{OneQueryModelBackend.__qualname__}"
    known = one_query in settings.AUTHENTICATION_BACKENDS
    nothing = Value(None, output_field=BooleanField())
    held: Any = ArraySubquery(permissions_of(OuterRef("user"))) if known else nothing
    user = [f"user__{name}" for name in _user_columns()]
    tokens = token_model().objects.filter(token_key=key)
    return tokens.values_list("digest", "expiry", "grant__read_only", "grant__rate", held, *user)


def _found(row: Row) -> tuple[AbstractBaseUser, Bearer]:
    digest, expiry, read_only, rate, permissions, *values = row
    user: Any = get_user_model().from_db(token_model().objects.db, _user_columns(), values)
    if permissions is not None:
        user.held_permissions = set(permissions)
    return user, Bearer(digest, expiry, bool(read_only), rate)


class BearerAuthentication(TokenAuthentication):
    """`Authorization: Bearer <token>`, with django-rest-knox's tokens.

    Unlike knox's own class it asks the database once and deletes nothing: an expired token stays
    for `list_tokens` to show. The details of its refusals are authentik's.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, Bearer] | None:
        """The user and the token; None where there is no Authorization header.

        Raises AuthenticationFailed for every header but a good one.
        """
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        if not (match := CREDENTIALS.fullmatch(header.strip(" \t"))):
            scheme, *_ = header.split(maxsplit=1) or [""]
            other = scheme and scheme.lower() != "bearer"
            raise AuthenticationFailed(
                "Unsupported authentication type" if other else "Malformed header"
            )
        return self.authenticate_credentials(match[1])

    def authenticate_credentials(self, token: str) -> tuple[AbstractBaseUser, Bearer]:
        """The user and the token; raises AuthenticationFailed where there is none."""
        digest = hash_token(token)
        for row in read_tokens(token[: CONSTANTS.TOKEN_KEY_LENGTH]):
            user, bearer = _found(row)
            if compare_digest(digest, bearer.digest) and not expired(bearer.expiry):
                if not user.is_active:
                    raise AuthenticationFailed("User inactive")
                usage.note(digest)
                return user, bearer
        raise AuthenticationFailed("Token invalid/expired")

    def authenticate_header(self, request: Request) -> str:
        """No `WWW-Authenticate`, for which DRF answers 403 where it would answer 401."""
        return ""


@cache
def token_model() -> "type[AbstractAuthToken]":
    """The project's model of tokens: knox's own, or the one that KNOX_TOKEN_MODEL names."""
    model: type[AbstractAuthToken] = get_token_model()
    return model


def expired(expiry: datetime | None) -> bool:
    """Whether a token's time is over, when this is its end."""
    return expiry is not None and expiry <= timezone.now()
