"""Who asks: the bearer of a token that only its holder knows, since the database keeps its hash."""

import re
from datetime import datetime
from functools import cache
from hmac import compare_digest
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, Permission
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet, Value
from django.db.models.functions import Concat
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AbstractAuthToken, get_token_model
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from events.statements import Row, Statement
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
def _users() -> tuple[Any, list[str]]:
    """The model of users, and the columns that are read.

    Django loads the others where somebody asks for them.
    """
    model = get_user_model()
    names = {model._meta.pk.name, model.USERNAME_FIELD, "is_active", "is_superuser"}
    return model, [field.attname for field in model._meta.concrete_fields if field.name in names]


def _tokens(key: Value) -> "QuerySet[AbstractAuthToken, Any]":
    """Tokens, their grants, their users, and what each user may do, directly or by a group."""
    names = Permission.objects.order_by().values_list(
        Concat("content_type__app_label", Value("."), "codename")
    )
    held = names.filter(user=OuterRef("user")).union(
        names.filter(group__user=OuterRef("user")), all=True
    )
    held = held.order_by()  # since Django 6.1 a union has the model's ordering
    _, columns = _users()
    user = [f"user__{name}" for name in columns]
    grant = ("grant__read_only", "grant__rate")
    tokens = token_model().objects.filter(token_key=key)
    return tokens.values_list("digest", "expiry", *grant, ArraySubquery(held), *user)


TOKENS = Statement(_tokens)


def _found(row: Row) -> tuple[AbstractBaseUser, Bearer]:
    """The token of a row and its user, who has the permissions at hand."""
    digest, expiry, read_only, rate, permissions, *values = row
    model, columns = _users()
    user = model.from_db(TOKENS.alias, columns, values)
    user._perm_cache = set(permissions)  # where Django's ModelBackend keeps them
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
        for row in self.fetch(token[: CONSTANTS.TOKEN_KEY_LENGTH]):
            user, bearer = _found(row)
            if compare_digest(digest, bearer.digest) and not expired(bearer.expiry):
                if not user.is_active:
                    raise AuthenticationFailed("User inactive")
                usage.note(digest)
                return user, bearer
        raise AuthenticationFailed("Token invalid/expired")

    def fetch(self, key: str) -> list[Row]:
        """The rows of the tokens that begin so."""
        return TOKENS.fetch(key)

    def authenticate_header(self, request: Request) -> str:
        """No `WWW-Authenticate`, for which DRF answers 403 where it would answer 401."""
        return ""


class BearerAuthenticationBeside(BearerAuthentication):
    """The same, whose one statement also finds the row that the request is about.

    Two statements cost a request nearly twice as much. `statement` is `TOKENS` beside another one,
    whose parameter gets `value`.
    """

    def __init__(self, statement: Statement, value: str) -> None:
        self._statement, self._value = statement, value
        self.row: Row | None = None
        """What was found, for a view that has checked the permission; None where nothing was."""

    def fetch(self, key: str) -> list[Row]:
        """The rows of the tokens that begin so."""
        rows, width = self._statement.fetch(key, self._value), TOKENS.width
        if rows:
            beside = rows[0][width:]
            self.row = beside if beside.count(None) < len(beside) else None
        return [row[:width] for row in rows]


@cache
def token_model() -> "type[AbstractAuthToken]":
    """The project's model of tokens: knox's own, or the one that KNOX_TOKEN_MODEL names."""
    model: type[AbstractAuthToken] = get_token_model()
    return model


def expired(expiry: datetime | None) -> bool:
    """Whether a token's time is over, when this is its end."""
    return expiry is not None and expiry <= timezone.now()
