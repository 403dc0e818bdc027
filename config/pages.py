"""Django's middleware for sessions, users and messages, without its cost for the API."""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest

from events.errors import API_PREFIX


class SkipForAPI:
    """A mixin for a middleware class, by which requests to the API skip it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - as in Django
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class SessionMiddleware(SkipForAPI, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(SkipForAPI, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(SkipForAPI, messages.MessageMiddleware):
    pass
