"""The conventional stack's WSGI application."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.serving.conventional"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
