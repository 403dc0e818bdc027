"""Error responses, in the two forms of the contract.

ValidationError is `{"<field>": ["..."], "code": "invalid"}`, GenericError is
`{"detail": "...", "code": "..."}`. Both are JSON, whichever format the request accepts.
"""

import math
from collections.abc import Callable
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from psycopg.errors import QueryCanceled
from rest_framework import exceptions

from systemtasks.own_logger import own_logger

from .headers import add_headers
from .transactions import without_transaction

logger = own_logger(__name__)

ExceptionHandler = Callable[[Exception, dict[str, Any]], HttpResponse]

API_PREFIX = "/api/v3/"


class PreconditionFailed(exceptions.APIException):
    """A condition of the request is not met: status 412."""

    status_code = 412
    default_detail = "The answer is not the one that was asked for."
    default_code = "precondition_failed"


class BodyTooSlow(exceptions.APIException):
    """The body of the request comes too slowly: status 408."""

    status_code = 408
    default_detail = "The request's body did not arrive in time."
    default_code = "request_timeout"


class BodyTooLarge(exceptions.APIException):
    """The body of the request is larger than the server accepts: status 413."""

    status_code = 413
    default_detail = "The request's body is too large."
    default_code = "content_too_large"


class Overloaded(exceptions.APIException):
    """The server has too many requests to answer: status 503."""

    status_code = 503
    default_detail = "Too many requests wait for an answer."
    default_code = "service_unavailable"
    wait = 1
    """Seconds after which the client may try again, for the Retry-After header."""


class QueryTooSlow(exceptions.APIException):
    """A statement of the request, or all of them together, took too long: status 503."""

    status_code = 503
    default_detail = "The database would take too long to answer this. Ask for less."
    default_code = "query_timeout"


def is_cancelled(error: BaseException) -> bool:
    """Return True if Postgres raised the error because a statement took longer than it may."""
    return isinstance(error, OperationalError) and isinstance(error.__cause__, QueryCanceled)


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """Return the response to a request whose view raised this error; for DRF's EXCEPTION_HANDLER.

    An error of status 500 or above is logged with its traceback; the response does not show it. A
    statement that took too long is logged without one. Nothing is rolled back, unlike in DRF's own
    handler: no view here runs in a transaction of the request, and a transaction around it is
    somebody else's.
    """
    api_error = _api_exception(error)
    if isinstance(api_error, QueryTooSlow):
        request = context["request"]
        logger.warning("%s %s took the database too long", request.method, request.path)
    elif api_error.status_code >= 500:
        request = context["request"]
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return _response(api_error)


@csrf_exempt
@without_transaction
def unknown_path(request: HttpRequest) -> HttpResponse:
    """Respond 404 to every path below the API's prefix that has no view."""
    return _response(exceptions.NotFound())


def precondition_failed() -> HttpResponse:
    """Return the response to a request whose `If-Match` names another version of the content."""
    return _response(PreconditionFailed())


def refusal(path: str, error: exceptions.APIException) -> HttpResponse:
    """Return the response to a request for this path that the web server refuses."""
    if path.startswith(API_PREFIX):
        return _response(error)
    return HttpResponse(f"{error.detail}\n", content_type="text/plain", status=error.status_code)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Respond as Django's handler400 does, but in JSON below the API's prefix."""
    if request.path_info.startswith(API_PREFIX):
        return _response(_api_exception(exception))
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Respond as Django's handler500 does, but in JSON below the API's prefix."""
    if request.path_info.startswith(API_PREFIX):
        return _response(exceptions.APIException())
    return defaults.server_error(request)


def _api_exception(error: Exception) -> exceptions.APIException:
    """Return DRF's exception for this error. Its status is 500 if the error is unforeseen."""
    match error:
        case exceptions.ParseError():
            return exceptions.ValidationError([error.detail])
        case exceptions.APIException():
            return error
        case OperationalError() if is_cancelled(error):
            return QueryTooSlow()
        case Http404():
            return exceptions.NotFound()
        case PermissionDenied():
            return exceptions.PermissionDenied()
        case SuspiciousOperation() | BadRequest():
            return exceptions.ValidationError(["Bad request."])
    return exceptions.APIException()


def _response(error: exceptions.APIException) -> JsonResponse:
    response = JsonResponse(_body(error), status=error.status_code)
    if (wait := getattr(error, "wait", None)) is not None:
        response["Retry-After"] = f"{math.ceil(wait)}"
    add_headers(response)
    return response


def _body(error: exceptions.APIException) -> dict[str, Any]:
    if not isinstance(error, exceptions.ValidationError):
        return {"detail": error.detail, "code": error.get_codes()}
    detail = error.detail
    fields = detail if isinstance(detail, dict) else {"non_field_errors": detail}
    return {**fields, "code": "invalid"}
