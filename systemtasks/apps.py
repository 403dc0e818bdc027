"""Connects the receivers when Django starts."""

import logging

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import pgettext_lazy

logger = logging.getLogger(__name__)


class SystemTasksConfig(AppConfig):
    name = "systemtasks"
    verbose_name = pgettext_lazy("systemtasks", "System Tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        _require_psycopg()
        from django.db import connections

        from systemtasks import checks  # noqa: F401 - importing them connects them
        from systemtasks.capture.celery import signals
        from systemtasks.conf import conf
        from systemtasks.under_test import is_under_test

        under_test = is_under_test()  # once pytest has ended, it could no longer find out
        rules = conf()
        if not rules.ENABLED:
            return
        vendor = connections[rules.DATABASE].vendor
        if vendor == "postgresql":
            signals.connect()
        elif not under_test:
            logger.warning(
                "Nothing is recorded: SYSTEMTASKS['DATABASE'] is %r, which is %s, not PostgreSQL.",
                rules.DATABASE,
                vendor,
            )


def _require_psycopg() -> None:
    """Raise ImproperlyConfigured if psycopg 3 cannot be used. The message says what to install."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ImproperlyConfigured(
            f"systemtasks needs psycopg 3, which cannot be imported here ({error}). "
            "Install it with its own libpq: python -m pip install 'psycopg[binary]'"
        ) from error
