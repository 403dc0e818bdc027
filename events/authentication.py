"""Authenticate a request by its bearer token. The database keeps only its hash."""

import re
from datetime import UTC, datetime
from functools import cache
from hmac import compare_digest
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, OuterRef, QuerySet, Value
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AbstractAuthToken, get_token_model
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from systemtasks.connecting import Row

from .backends import OneQueryModelBackend, permissions_of
from .prepared import prepared
from .rates import client_of
from .throttling import wrong_tokens
from .tokens import utc_time
from .usage import usage
from .users import has_permission_fields, user_columns

# RFC 6750, section 2.1; the scheme is case-insensitive by RFC 9110, section 11.1.
CREDENTIALS = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")


class TokenInfo(NamedTuple):
    """The token that a request was authenticated with: `request.auth`."""

    digest: str
    """The token's hash, which is its primary key."""
    expiry: datetime | None
    read_only: bool
    """True if only GET, HEAD and OPTIONS are allowed."""
    rate: int | None
    """Requests allowed a minute; None for no limit."""


@prepared
def read_tokens(key: Value) -> "QuerySet[AbstractAuthToken, Any]":
    """Return the tokens that begin with this key, each with its grant and its user.

    The user's permissions are read as well if OneQueryModelBackend is in use and knows the user
    model's. Otherwise they are NULL.
    """
    backend = f"{OneQueryModelBackend.__module__}.{OneQueryModelBackend.__qualname__}"
    permissions: Any = Value(None, output_field=BooleanField())
    if backend in settings.AUTHENTICATION_BACKENDS and has_permission_fields():
        permissions = ArraySubquery(permissions_of(OuterRef("user")))
    columns = ["digest", "expiry", "grant__read_only", "grant__rate", permissions]
    columns += [f"user__{name}" for name in user_columns()]
    return token_model().objects.filter(token_key=key).values_list(*columns)


def _user_and_token(row: Row) -> tuple[AbstractBaseUser, TokenInfo]:
    """Return the user and the token of a row of `read_tokens`."""
    digest, expiry, read_only, rate, permissions, *values = row
    user: Any = get_user_model().from_db(token_model().objects.db, user_columns(), values)
    if permissions is not None:
        user.all_permissions = set(permissions)  # see permissions_of
    return user, TokenInfo(digest, expiry, bool(read_only), rate)


class BearerAuthentication(TokenAuthentication):
    """Authenticate `Authorization: Bearer <token>` against django-rest-knox's tokens.

    Unlike knox's own class, this one makes a single query and deletes nothing: an expired token
    remains for `list_tokens` to show. The error messages are authentik's.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, TokenInfo] | None:
        """Return the user and the token, or None if the request has no Authorization header.

        Raise AuthenticationFailed if the token in it is not valid, and Throttled if the client has
        sent too many such tokens.
        """
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        if not (match := CREDENTIALS.fullmatch(header.strip(" \t"))):
            scheme, *_ = header.split(maxsplit=1) or [""]
            if scheme and scheme.lower() != "bearer":
                raise AuthenticationFailed("Unsupported authentication type")
            raise AuthenticationFailed("Malformed header")
        client = client_of(request)
        wrong_tokens.check(client, match[1])
        try:
            user, token = self.authenticate_credentials(match[1])
        except AuthenticationFailed:
            wrong_tokens.count(client)
            raise
        wrong_tokens.accept(token.digest)
        return user, token

    def authenticate_credentials(self, token: str) -> tuple[AbstractBaseUser, TokenInfo]:
        """Return the user and the token.

        Raise AuthenticationFailed if the token does not exist or has expired, or if its user is
        inactive.
        """
        digest = hash_token(token)
        for row in read_tokens(token[: CONSTANTS.TOKEN_KEY_LENGTH]):
            user, info = _user_and_token(row)
            if compare_digest(digest, info.digest) and not is_expired(info.expiry):
                if not user.is_active:
                    raise AuthenticationFailed("User inactive")
                usage.record(digest)
                return user, info
        raise AuthenticationFailed("Token invalid/expired")

    def authenticate_header(self, request: Request) -> str:
        """Return no `WWW-Authenticate` header: without one, DRF responds 403 instead of 401."""
        return ""


@cache
def token_model() -> "type[AbstractAuthToken]":
    """Return the model of the tokens: knox's own, or the one that KNOX_TOKEN_MODEL names."""
    model: type[AbstractAuthToken] = get_token_model()
    return model


def is_expired(expiry: datetime | None) -> bool:
    """Return True if a token with this expiry is no longer valid. None means no expiry."""
    return expiry is not None and utc_time(expiry) <= datetime.now(UTC)
