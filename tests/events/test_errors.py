"""Every answer below /api/v3/ is JSON, after every error."""

import json
import logging
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import Http404
from django.test import Client, RequestFactory
from pytest_django import Settings
from rest_framework import exceptions

from events import errors
from events.views import SystemTaskViewSet

LIST = "/api/v3/events/system_tasks/"
NOT_FOUND = {"detail": "Not found.", "code": "not_found"}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("method", ["get", "post", "delete", "options"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/nonsense/",
        "/api/v3/nonsense",
        "/api/v3//nonsense/",
        "/api/v3/events/system_tasks",
        "/api/v3/events//system_tasks/",
        "/api/v3/events/system_tasks/a/b/",
        "/api/v3/%00%FF%0A",
    ],
)
def test_an_unknown_path_is_404_in_json(
    settings: Settings, path: str, method: str, debug: bool
) -> None:
    settings.DEBUG = debug
    answer = getattr(Client(enforce_csrf_checks=True), method)(path)
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == NOT_FOUND


@pytest.mark.parametrize("path", ["/nonsense/", "/api/"])
def test_an_unknown_path_elsewhere_is_a_page(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("debug", [False, True])
def test_what_is_unforeseen_is_500_without_a_traceback_and_logged_with_one(
    reader: Client,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    debug: bool,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("secret words")

    settings.DEBUG = debug
    monkeypatch.setattr(SystemTaskViewSet, "get_queryset", fail)
    answer = reader.get(LIST)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "A server error occurred.", "code": "error"}
    [record] = [record for record in caplog.records if record.name == "events.errors"]
    assert record.levelno == logging.ERROR
    assert "secret words" in caplog.text
    assert LIST in record.getMessage()


def test_what_fails_before_any_view_is_500_in_json(settings: Settings) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.failing_middleware"]
    client = Client(raise_request_exception=False)
    answer = client.get(LIST)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "A server error occurred.", "code": "error"}
    assert client.get("/nonsense/")["Content-Type"].startswith("text/html")


def failing_middleware(_: object) -> Any:
    def middleware(_: object) -> None:
        raise RuntimeError("secret words")

    return middleware


def test_a_host_that_is_not_ours_is_400_in_json() -> None:
    answer = Client().get(LIST, headers={"host": "elsewhere.invalid"})
    assert answer.status_code == 400
    assert answer.json() == {"non_field_errors": ["Bad request."], "code": "invalid"}
    page = Client().get("/admin/", headers={"host": "elsewhere.invalid"})
    assert page["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("path", [LIST, "/api/v3/", "/api/v3/schema/"])
def test_a_format_that_we_do_not_speak_is_406_in_json(reader: Client, path: str) -> None:
    answer = reader.get(path, headers={"accept": "image/png"})
    assert answer.status_code == 406
    assert answer["Content-Type"] == "application/json"
    assert answer.json()["code"] == "not_acceptable"


@pytest.mark.parametrize("path", [LIST, "/api/v3/schema/"])
def test_an_unknown_format_parameter_is_404_in_json(reader: Client, path: str) -> None:
    answer = reader.get(path, {"format": "xml"})
    assert answer.status_code == 404
    assert answer.json() == NOT_FOUND


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (exceptions.NotFound("Gone."), 404, {"detail": "Gone.", "code": "not_found"}),
        (Http404("No such thing."), 404, NOT_FOUND),
        (
            PermissionDenied("secret"),
            403,
            {
                "detail": "You do not have permission to perform this action.",
                "code": "permission_denied",
            },
        ),
        (
            exceptions.UnsupportedMediaType("text/x"),
            415,
            {
                "detail": 'Unsupported media type "text/x" in request.',
                "code": "unsupported_media_type",
            },
        ),
        (
            exceptions.Throttled(7),
            429,
            {
                "detail": "Request was throttled. Expected available in 7 seconds.",
                "code": "throttled",
            },
        ),
        (exceptions.ParseError("Bad."), 400, {"non_field_errors": ["Bad."], "code": "invalid"}),
        (
            exceptions.ValidationError("Bad."),
            400,
            {"non_field_errors": ["Bad."], "code": "invalid"},
        ),
        (
            exceptions.ValidationError({"name": ["Bad."]}),
            400,
            {"name": ["Bad."], "code": "invalid"},
        ),
    ],
)
def test_each_error_has_the_body_of_the_contract(
    error: Exception, status: int, body: dict[str, Any]
) -> None:
    answer = errors.exception_handler(error, {"request": RequestFactory().get(LIST)})
    assert answer.status_code == status
    assert json.loads(answer.content) == body


def test_throttling_tells_when_to_come_back() -> None:
    error = exceptions.Throttled(7)
    assert errors.exception_handler(error, {})["Retry-After"] == "7"
