"""ETags, and what a request says of them (RFC 9110, section 13)."""

from typing import Any

from django.http import HttpRequest
from django.middleware.http import ConditionalGetMiddleware
from django.utils.cache import get_conditional_response, set_response_etag
from django.utils.decorators import decorator_from_middleware

from events.errors import precondition_failed


class ConditionalMiddleware(ConditionalGetMiddleware):
    """Django's own, for HEAD as well, where DRF has the body that the GET would have."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:  # noqa: ANN401
        """The response with its ETag; or 304, or 412, where the request wants another one."""
        answer: Any
        if request.method == "HEAD":
            set_response_etag(response)
            tag = response.get("ETag")
            answer = get_conditional_response(request, tag, response=response)
        else:
            answer = super().process_response(request, response)
        return precondition_failed() if answer.status_code == 412 else answer


conditional = decorator_from_middleware(ConditionalMiddleware)
