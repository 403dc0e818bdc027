"""Connects the receivers when Django starts."""

from django.apps import AppConfig


class SystemTasksConfig(AppConfig):
    name = "systemtasks"
    verbose_name = "System Tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from systemtasks import checks  # noqa: F401 - importing them connects them
        from systemtasks.capture.celery import signals
        from systemtasks.conf import conf
        from systemtasks.under_test import is_under_test

        is_under_test()  # once pytest has ended, it could no longer find out
        if conf().ENABLED:
            signals.connect()
