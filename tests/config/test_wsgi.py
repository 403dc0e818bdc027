"""What the server gets from the application."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from django.core.signals import request_finished

from config.wsgi import application


@pytest.fixture
def finished() -> Iterator[list[str]]:
    """An entry for each request that is over."""
    ends: list[str] = []

    def note(**_: Any) -> None:
        ends.append("over")

    request_finished.connect(note)
    yield ends
    request_finished.disconnect(note)


def ask(path: str) -> Any:
    """What the application returns to a GET, the status and the headers."""
    sent: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.input": BytesIO(),
        "wsgi.url_scheme": "http",
    }
    answer = application(environ, lambda *given: sent.extend(given))
    return answer, sent[0], dict(sent[1])


@pytest.mark.django_db
def test_an_answer_is_handed_over_in_one_piece_and_its_request_is_over(
    finished: list[str],
) -> None:
    answer, status, headers = ask("/api/v3/events/system_tasks/")
    assert status == "403 Forbidden"
    assert isinstance(answer, list)
    assert len(answer[0]) == int(headers["Content-Length"])
    assert finished == ["over"]


def test_a_file_is_streamed(finished: list[str]) -> None:
    path = "/static/drf_spectacular_sidecar/swagger-ui-dist/favicon-32x32.png"
    answer, status, headers = ask(path)
    assert status == "200 OK"
    assert not isinstance(answer, list)
    assert finished == []
    assert len(b"".join(answer)) == int(headers["Content-Length"])
    answer.close()
    assert finished == ["over"]
