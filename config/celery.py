"""The Celery app of this repository's own service."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.conf import settings

settings.EMBEDDED.attach()

app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
if settings.DEMO_TASKS:
    app.autodiscover_tasks(["config"], related_name="demo")
