"""The headers that every answer of the API has."""

from django.http import HttpResponse
from django.utils.cache import patch_vary_headers

NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of a response that is not a page: a browser loads nothing for it."""

PAGE = (
    "default-src 'none'; base-uri 'none'; connect-src 'self'; font-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'"
)
"""The Content-Security-Policy of the Swagger UI page. Swagger UI styles its elements itself."""


def add_headers(response: HttpResponse) -> None:
    """Add the headers that the response does not have yet.

    A response is for the client with this token only. No cache may store it, or return it for
    another token.
    """
    response.headers.setdefault("Cache-Control", "private, no-store")
    response.headers.setdefault("Content-Security-Policy", NOTHING)
    response.headers.setdefault("X-Frame-Options", "DENY")
    if response.has_header("Vary"):
        patch_vary_headers(response, ("Authorization",))
    else:
        response.headers["Vary"] = "Authorization"
