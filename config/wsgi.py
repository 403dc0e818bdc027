"""The WSGI application. config/asgi.py calls it, and any other WSGI server may serve it, too."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import config.celery  # noqa: F401 - makes the app that `.delay()` uses, and starts embedded services

application = get_wsgi_application()
