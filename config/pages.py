"""Django's middlewares that only pages for people need: the API knows no session."""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest

from events.errors import API_PREFIX


class NotForTheAPI:
    """Before one of Django's middleware classes: it is passed by on the way to the API."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - as in Django
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class SessionMiddleware(NotForTheAPI, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(NotForTheAPI, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(NotForTheAPI, messages.MessageMiddleware):
    pass
