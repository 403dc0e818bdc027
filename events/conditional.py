"""ETags, and what a request says of them (RFC 9110, section 13)."""

from collections.abc import Callable
from functools import wraps
from hashlib import md5
from typing import Any

from django.http import HttpRequest
from django.utils.cache import get_conditional_response

from events.errors import precondition_failed

View = Callable[..., Any]

CONDITIONS = {
    *("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"),
    *("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
}


def conditional(view: View) -> View:
    """The view, whose answers to GET and HEAD have an ETag.

    They are 304 or 412 where the request wants no such answer. Django's ConditionalGetMiddleware
    does not do that for HEAD, in which DRF has the body that the GET would have.
    """

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the view
        response = view(request, *args, **kwargs)
        if request.method not in ("GET", "HEAD"):
            return response
        if not getattr(response, "is_rendered", True):
            response.render()
        if not response.streaming and (content := response.content):
            response["ETag"] = f'"{md5(content, usedforsecurity=False).hexdigest()}"'
        if request.META.keys().isdisjoint(CONDITIONS):  # as in nearly every request
            return response
        found = get_conditional_response(request, response.get("ETag"), response=response)
        return found if found is None or found.status_code != 412 else precondition_failed()

    return answer
