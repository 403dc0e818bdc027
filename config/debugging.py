"""Mask the secrets of the settings in what Django reports of an error: DEBUG's page, e-mails."""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.utils.html import escape
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

MASK = SafeExceptionReporterFilter.cleansed_substitute
SHORTEST_SECRET = 3  # characters; a shorter one would be masked in the middle of other words


class ReporterFilter(SafeExceptionReporterFilter):
    """Django's filter, which also masks URLs: those of a database and a broker hold a password."""

    hidden_settings = re.compile(
        rf"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL$|DSN|CREDENTIAL", re.IGNORECASE
    )


class Reporter(ExceptionReporter):
    """Django's reporter, which also masks the values of the secrets.

    They may be in a local variable of any name, or in the text of an error.
    """

    def get_traceback_html(self) -> SafeString:
        """Return the report as a page."""
        return _without_secrets(super().get_traceback_html())

    def get_traceback_text(self) -> SafeString:
        """Return the report as a text."""
        return _without_secrets(super().get_traceback_text())


def _without_secrets(report: str) -> SafeString:
    for secret in sorted(_secrets(), key=len, reverse=True):
        for text in {secret, escape(secret), escape(repr(secret)[1:-1])}:
            report = report.replace(text, MASK)
    # Marked as safe again: Django's own report is escaped.
    return SafeString(report)  # nosec B703


def _secrets() -> set[str]:
    """Return the passwords in the settings, as they are and encoded for a URL."""
    found = {str(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)}
    found |= {str(database["PASSWORD"]) for database in settings.DATABASES.values()}
    for url in settings.CELERY_BROKER_URL.split(";"):
        password = _password(url)
        found |= {password, unquote(password)}
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _password(url: str) -> str:
    parts: Any = urlsplit(url)
    return parts.password or ""
