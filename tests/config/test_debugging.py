"""DEBUG's page of an error shows no secret of the settings."""

import sys

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils.html import escape
from django.views.debug import technical_500_response
from pytest_django import Settings

BROKER = "redis://:pa%24s-w0rd@broker/0"
SECRETS = [BROKER, "pa%24s-w0rd", "pa$s-w0rd", "hunter<22>", "k" * 25 + "z" * 25]


def page(request: HttpRequest) -> str:
    """Return the page of an error. The secrets are in its frames."""
    try:
        url, text = BROKER, f"cannot connect to {BROKER} as hunter<22>"
        options = [{"word": "pa$s-w0rd"}, ("hunter<22>", url)]
        raise RuntimeError(text, options)
    except RuntimeError:
        return technical_500_response(request, *sys.exc_info()).content.decode()


@pytest.fixture
def debugged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings.DEBUG = True
    settings.CELERY_BROKER_URL = BROKER
    settings.SECRET_KEY = SECRETS[-1]
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "hunter<22>")
    return settings


@pytest.mark.parametrize("accepts", ["text/html", "text/plain"])
def test_page_of_an_error_shows_no_secret(debugged: Settings, accepts: str) -> None:
    shown = page(RequestFactory().get("/", headers={"accept": accepts}))
    assert "cannot connect to" in shown
    assert "CELERY_BROKER_URL" in shown or accepts == "text/plain"
    found = [secret for secret in SECRETS if secret in shown or escape(secret) in shown]
    assert found == []


def test_setting_that_is_no_secret_is_shown(debugged: Settings) -> None:
    assert "systemtasks.events" in page(RequestFactory().get("/"))
