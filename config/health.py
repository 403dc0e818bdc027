"""Health checks for container platforms, at the same paths as in authentik.

`/-/health/live/` succeeds if this process serves requests, `/-/health/ready/` if the database
answers as well.
"""

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def answer_health(get_response: GetResponse) -> GetResponse:
    """Respond to health checks; a middleware.

    It must be the first middleware: a health check uses neither an allowed host name nor HTTPS.
    """

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
