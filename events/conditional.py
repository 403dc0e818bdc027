"""ETags and `If-None-Match`."""

from typing import Any

from django.http import HttpRequest
from django.middleware.http import ConditionalGetMiddleware
from django.utils.cache import get_conditional_response, set_response_etag
from django.utils.decorators import decorator_from_middleware


class ConditionalMiddleware(ConditionalGetMiddleware):
    """Django's own, which leaves HEAD alone, where DRF has the body that the GET would have."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:  # noqa: ANN401
        """The response with its ETag, or 304 where the caller has it already."""
        if request.method != "HEAD":
            return super().process_response(request, response)
        set_response_etag(response)
        return get_conditional_response(request, response.get("ETag"), response=response)


conditional = decorator_from_middleware(ConditionalMiddleware)
