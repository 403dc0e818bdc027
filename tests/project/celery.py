"""The project's Celery app, with Celery's own defaults."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")

app = Celery("project", include=["tests.project.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
