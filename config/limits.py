"""Limit one request's use of the database, of memory and of the processor."""

import logging
import math
import time
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import Any

from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.db import DEFAULT_DB_ALIAS, DataError, connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from psycopg.errors import UndefinedFunction
from rest_framework.exceptions import APIException

from events.errors import API_PREFIX, BodyTooLarge, QueryTooSlow, is_cancelled, refusal

logger = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponseBase]

LOGIN = "admin:login"
BUSY = "Somebody else logs in at this moment. Please try again.\n"


class BadPage(APIException):
    """The address of a page, or a form, has values that make no sense: status 400."""

    status_code = 400
    default_detail = "There is no such page: a value in its address or in the form makes no sense."


class DatabaseTime:
    """Limits the time that all statements of one request take together, as an `execute_wrapper`.

    Postgres cancels a single slow statement, but a page may have several of them.
    """

    def __init__(self, seconds: float) -> None:
        """Take the seconds after which no other statement begins."""
        self.left = seconds

    def __call__(self, execute: Callable[..., Any], *statement: object) -> Any:  # noqa: ANN401
        """Execute a statement. Raise QueryTooSlow if no time is left."""
        if self.left <= 0:
            raise QueryTooSlow
        start = time.monotonic()
        try:
            return execute(*statement)
        finally:
            self.left -= time.monotonic() - start


class LimitRequests:
    """Refuses large bodies and simultaneous logins, and ends slow statements.

    This middleware must come after that of CSRF: it calls some views itself. The web server
    refuses large bodies by itself (config/asgi.py), but another WSGI server may not.
    """

    def __init__(self, get_response: GetResponse) -> None:
        """Take the rest of the middleware."""
        self.get_response = get_response
        # The check of a password is slow on purpose: it uses a processor for much of a second.
        self._logins = BoundedSemaphore(1)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Respond. The status is 413 if the body has more than WEB_BODY_BYTES.

        Once the statements of the request have taken WEB_STATEMENT_SECONDS together, no other one
        begins. Those of a streamed response have only the limit of each statement.
        """
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > settings.WEB_BODY_BYTES:
            return refusal(request.path_info, BodyTooLarge())
        database_time = DatabaseTime(settings.WEB_STATEMENT_SECONDS or math.inf)
        request.database_time = database_time  # type: ignore[attr-defined]
        with connections[DEFAULT_DB_ALIAS].execute_wrapper(database_time):
            return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponseBase],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        """Return the view's response if it has limits of its own, or None."""
        match = request.resolver_match
        if request.method != "POST" or match is None or match.app_name != "admin":
            return None
        if match.view_name == LOGIN:
            return self._log_in(request, view, args, kwargs)
        if str(match.url_name).endswith("_delete") or _deletes_selected(request):
            request.database_time.left = math.inf  # type: ignore[attr-defined]
            with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 0")
                return view(request, *args, **kwargs)
        return None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Respond with a sentence if the page cannot be made.

        That is the case if the statements took too long, or Postgres refuses a value of the query.
        Django's own admin does not check some values: NUL, times out of range, names of fields that
        do not exist, lookups that need a function of an extension (`username__unaccent`).
        """
        if request.path_info.startswith(API_PREFIX):
            return None
        if is_cancelled(error) or isinstance(error, QueryTooSlow):
            logger.warning("%s %s took the database too long", request.method, request.path)
            return refusal(request.path_info, QueryTooSlow())
        if isinstance(error, (DataError, FieldDoesNotExist)) or isinstance(
            error.__cause__, UndefinedFunction
        ):
            logger.warning("%s %s makes no sense: %s", request.method, request.path, error)
            return refusal(request.path_info, BadPage())
        return None

    def _log_in(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponseBase],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase:
        if not self._logins.acquire(blocking=False):
            busy = HttpResponse(BUSY, content_type="text/plain", status=429)
            busy["Retry-After"] = "1"
            return busy
        try:
            return view(request, *args, **kwargs)
        finally:
            self._logins.release()


def _deletes_selected(request: HttpRequest) -> bool:
    return request.POST.get("action") == "delete_selected"
