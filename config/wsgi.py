"""The WSGI application that a server serves."""

import os
from collections.abc import Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import config.celery  # noqa: F401 - the app that `.delay()` uses, and the embedded services

_django: Any = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
    """Django's, whose answers are lists where they are no streams.

    Granian sends a list in one go; of any other iterable it fetches part by part.
    """
    response = _django(environ, start_response)
    if getattr(response, "streaming", True):
        stream: Iterable[bytes] = response
        return stream
    body = [response.content]
    response.close()
    return body
