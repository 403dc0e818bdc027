"""The middleware of pages, without its cost for the API."""

from typing import Any

import django
from axes.middleware import AxesMiddleware
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.middleware import clickjacking, csrf, locale
from django.utils import translation
from django.utils.module_loading import import_string

from events.errors import API_PREFIX

_csp: Any = (
    import_string("django.middleware.csp.ContentSecurityPolicyMiddleware")
    if django.VERSION >= (6,)
    else import_string("csp.middleware.CSPMiddleware")
)


class SkipForAPI:
    """A mixin for a middleware class. API requests skip the middleware."""

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


class CsrfViewMiddleware(SkipForAPI, csrf.CsrfViewMiddleware):
    """Protects forms. Every view of the API is exempt: it accepts a token, and no session."""


class XFrameOptionsMiddleware(SkipForAPI, clickjacking.XFrameOptionsMiddleware):
    """Adds X-Frame-Options, which the API adds to its own responses."""


class LockoutMiddleware(SkipForAPI, AxesMiddleware):
    pass


class ContentSecurityPolicyMiddleware(SkipForAPI, _csp):  # type: ignore[misc]
    """Adds the policy of SECURE_CSP. The API's responses have their own policies."""


class LocaleMiddleware(locale.LocaleMiddleware):
    """Uses the browser's language for one page. The thread's next request may be for the API."""

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - as in Django
        if request.path_info.startswith(API_PREFIX):
            return self.get_response(request)
        try:
            return super().__call__(request)
        finally:
            translation.deactivate()
