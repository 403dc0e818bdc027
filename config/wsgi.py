"""The WSGI application. config/asgi.py calls it, and any other WSGI server may serve it, too."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import DEFAULT_DB_ALIAS, connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import config.celery  # noqa: F401 - makes the app that `.delay()` uses, and starts embedded services

_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request. None of its statements may take longer than WEB_STATEMENT_SECONDS."""
    connection: Any = connections[DEFAULT_DB_ALIAS]  # this thread's
    connection.statement_seconds = settings.WEB_STATEMENT_SECONDS
    return _django(environ, start_response)
