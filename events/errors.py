"""Every answer that is not the one asked for, in the two bodies of the contract.

ValidationError is `{"<field>": ["..."], "code": "invalid"}`, GenericError is
`{"detail": "...", "code": "..."}`. They are JSON whatever format was asked for.
"""

import logging
import math
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.views import set_rollback

logger = logging.getLogger(__name__)

API_PREFIX = "/api/v3/"


class PreconditionFailed(exceptions.APIException):
    """412."""

    status_code = 412
    default_detail = "The answer is not the one that was asked for."
    default_code = "precondition_failed"


class BodyTooSlow(exceptions.APIException):
    """408."""

    status_code = 408
    default_detail = "The request's body did not arrive in time."
    default_code = "request_timeout"


class BodyTooLarge(exceptions.APIException):
    """413."""

    status_code = 413
    default_detail = "The request's body is too large."
    default_code = "content_too_large"


class Overloaded(exceptions.APIException):
    """503."""

    status_code = 503
    default_detail = "Too many requests wait for an answer."
    default_code = "service_unavailable"
    wait = 1
    """Seconds, for Retry-After."""


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """What the API answers when a view raises; for DRF's EXCEPTION_HANDLER.

    A server's error is logged with its traceback, and answered without one.
    """
    set_rollback()
    known = _known(error)
    if known.status_code >= 500:
        request = context["request"]
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return _answer(known)


@csrf_exempt
def unknown_path(request: HttpRequest) -> HttpResponse:
    """The view of every path below the API's prefix that is no other view's."""
    return _answer(exceptions.NotFound())


def precondition_failed() -> HttpResponse:
    """What a GET with an `If-Match` is answered that names another answer than there is."""
    return _answer(PreconditionFailed())


def refusal(path: str, error: exceptions.APIException) -> HttpResponse:
    """Return what the web server answers to a request for this path that reaches no view."""
    if path.startswith(API_PREFIX):
        return _answer(error)
    return HttpResponse(f"{error.detail}\n", content_type="text/plain", status=error.status_code)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400, in JSON below the API's prefix."""
    if request.path_info.startswith(API_PREFIX):
        return _answer(_known(exception))
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, in JSON below the API's prefix."""
    if request.path_info.startswith(API_PREFIX):
        return _answer(exceptions.APIException())
    return defaults.server_error(request)


def _known(error: Exception) -> exceptions.APIException:
    match error:
        case exceptions.ParseError():
            return exceptions.ValidationError([error.detail])
        case exceptions.APIException():
            return error
        case Http404():
            return exceptions.NotFound()
        case PermissionDenied():
            return exceptions.PermissionDenied()
        case SuspiciousOperation() | BadRequest():
            return exceptions.ValidationError(["Bad request."])
    return exceptions.APIException()


def _answer(error: exceptions.APIException) -> JsonResponse:
    response = JsonResponse(_body(error), status=error.status_code)
    if (wait := getattr(error, "wait", None)) is not None:
        response["Retry-After"] = f"{math.ceil(wait)}"
    return response


def _body(error: exceptions.APIException) -> dict[str, Any]:
    if not isinstance(error, exceptions.ValidationError):
        return {"detail": error.detail, "code": error.get_codes()}
    detail = error.detail
    fields = detail if isinstance(detail, dict) else {"non_field_errors": detail}
    return {**fields, "code": "invalid"}
