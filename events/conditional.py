"""ETags, and the conditions that a request may set on them (RFC 9110, section 13)."""

from collections.abc import Callable
from functools import wraps
from hashlib import md5
from typing import Any

from django.http import HttpRequest
from django.utils.cache import get_conditional_response

from .errors import precondition_failed
from .headers import add_headers

View = Callable[..., Any]

CONDITIONS = {
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
}


def conditional(view: View) -> View:
    """Give the view's responses to GET and HEAD an ETag, and check the request's conditions.

    The response is 304 or 412 if a condition is not met. It has the headers of every response of
    the API. Django's ConditionalGetMiddleware gives no ETag to HEAD, although DRF renders the same
    body as for GET.
    """

    @wraps(view)
    def respond(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the view
        response = view(request, *args, **kwargs)
        add_headers(response)
        if request.method not in ("GET", "HEAD"):
            return response
        if not getattr(response, "is_rendered", True):
            response.render()
        if not response.streaming and (content := response.content):
            response["ETag"] = f'"{md5(content, usedforsecurity=False).hexdigest()}"'
        if request.META.keys().isdisjoint(CONDITIONS):  # true of nearly every request
            return response
        checked = get_conditional_response(request, response.get("ETag"), response=response)
        if checked is not None and checked.status_code == 412:
            return precondition_failed()
        return checked

    return respond
