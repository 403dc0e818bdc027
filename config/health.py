"""Answers the probes of a container platform, at authentik's paths for them.

`/-/health/live/` says that the process serves, `/-/health/ready/` that the database does too.
"""

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def answer_health(get_response: GetResponse) -> GetResponse:
    """A middleware, the first one: a probe knows neither the host's name nor HTTPS."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path == "/-/health/live/":
            return HttpResponse(status=204)
        if request.path == "/-/health/ready/":
            return HttpResponse(status=204 if _database_answers() else 503)
        return get_response(request)

    return middleware


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True
