"""The Celery app of the service."""

import os

from celery import Celery
from celery.signals import beat_init, celeryd_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.conf import settings

from config.environment import stop

settings.EMBEDDED.attach()

app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
if settings.DEMO_TASKS:
    app.autodiscover_tasks(["config"], related_name="demo")


def refuse_to_start(**_: object) -> None:
    """End this worker or beat: it would take the place of one of the project's own."""
    stop("WEB_ONLY is set, so the workers and beat are the project's.")


if settings.WEB_ONLY:
    for signal in (celeryd_init, beat_init):
        signal.connect(refuse_to_start, weak=False)
