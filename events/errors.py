"""Every answer that is not the one asked for, in the two bodies of the contract.

ValidationError is `{"<field>": ["..."], "code": "invalid"}`, GenericError is
`{"detail": "...", "code": "..."}`.
"""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

logger = logging.getLogger(__name__)

API_PREFIX = "/api/v3/"


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """What the API answers when a view raises.

    Anything unforeseen is logged with its traceback and answered as 500 without one.
    """
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    response = drf_exception_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        logger.error("Unforeseen error in the API", exc_info=error)
        return Response(
            {"detail": "A server error occurred.", "code": "error"},
            status=status.HTTP_500_INTERNAL_SERVER_ERROR,
        )
    if isinstance(error, exceptions.ValidationError):
        detail = error.detail
        fields = detail if isinstance(detail, dict) else {"non_field_errors": detail}
        response.data = {**fields, "code": "invalid"}
    else:
        response.data = {"detail": error.detail, "code": error.get_codes()}
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400, in JSON below the API's prefix."""
    if request.path.startswith(API_PREFIX):
        return JsonResponse({"non_field_errors": ["Bad request."], "code": "invalid"}, status=400)
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403, in JSON below the API's prefix."""
    if request.path.startswith(API_PREFIX):
        return _generic(exceptions.PermissionDenied())
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404, in JSON below the API's prefix."""
    if request.path.startswith(API_PREFIX):
        return _generic(exceptions.NotFound())
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, in JSON below the API's prefix."""
    if request.path.startswith(API_PREFIX):
        return _generic(exceptions.APIException())
    return defaults.server_error(request)


def _generic(error: exceptions.APIException) -> JsonResponse:
    return JsonResponse(
        {"detail": error.detail, "code": error.get_codes()}, status=error.status_code
    )
