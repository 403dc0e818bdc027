"""Limits of one request: its body, the time of a statement, simultaneous logins."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import Client, RequestFactory
from django.urls import resolve
from pytest_django import Settings

from config.limits import LimitRequests
from events.errors import QueryTooSlow
from tests import factories
from tests.projects import query
from tests.waiting import eventually
from tests.web import Web
from tests.workers import environment

TASKS = "/api/v3/events/system_tasks/"
ADMIN = "/admin/systemtasks/systemtask/"
LOGIN = "/admin/login/"


# Bodies


@pytest.mark.parametrize("size", [1, 900_000, 5_000_000])
def test_file_of_an_upload_is_kept_nowhere(size: int, tmp_path: Path, settings: Settings) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    form = {"file": SimpleUploadedFile("large.bin", bytes(size)), "username": "ops"}
    request = RequestFactory().post(LOGIN, form)
    assert request.POST.dict() == {"username": "ops"}
    assert request.FILES == {}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("path", [LOGIN, TASKS, "/nowhere/"])
def test_body_of_more_than_a_megabyte_is_refused(path: str, client: Client) -> None:
    answer = client.post(path, bytes(1_048_577), content_type="application/octet-stream")
    assert answer.status_code == 413
    if path == TASKS:
        assert answer.json()["code"] == "content_too_large"


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "1.5"])
def test_length_that_is_none_is_refused(length: str, client: Client) -> None:
    assert client.post(LOGIN, CONTENT_LENGTH=length).status_code == 413


# Statements

WAITING = """
SELECT 1 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND clock_timestamp() - query_start > interval '1.5 s'
"""
"""Statements that have exceeded the limit of these tests."""


@contextmanager
def locked(table: str) -> Iterator["psycopg.Connection[Any]"]:
    """Lock the table: no other connection can use it while the block lasts."""
    with psycopg.connect(environment()["DATABASE_URL"]) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield holder
        holder.rollback()


@pytest.fixture
def limited(transactional_db: None) -> Iterator[None]:
    """Limit this thread's connection like one that answers requests."""
    connection.close()
    connection.statement_seconds = 1  # type: ignore[attr-defined]
    yield
    connection.close()
    connection.statement_seconds = 0  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_web_server_cancels_a_slow_statement_with_a_sentence(tmp_path: Path) -> None:
    factories.system_task()
    token = factories.token(factories.user("reader", "view"))
    headers = {"Authorization": f"Bearer {token}"}
    with (
        Web(tmp_path / "web.log", WEB_STATEMENT_SECONDS="1") as web,
        closing(HTTPConnection("127.0.0.1", web.port, timeout=20)) as client,
    ):
        with locked("systemtasks_systemtask"):
            client.request("GET", TASKS, headers=headers)
            answer = client.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 503
            assert body["code"] == "query_timeout"
        client.request("GET", TASKS, headers=headers)
        assert client.getresponse().status == 200
    assert "Traceback" not in web.log.read_text()
    assert "took the database too long" in web.log.read_text()


@pytest.mark.usefixtures("limited")
def test_slow_statement_is_a_sentence_in_the_api() -> None:
    token = factories.token(factories.user("reader", "view"))
    client = Client(headers={"authorization": f"Bearer {token}"})
    task = factories.system_task()
    with locked("systemtasks_systemtask"):
        for path in (TASKS, f"{TASKS}{task.uuid}/"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json() == {
                "detail": "The database would take too long to answer this. Ask for less.",
                "code": "query_timeout",
            }
    assert client.get(TASKS).status_code == 200


@pytest.mark.usefixtures("limited")
def test_slow_statement_is_a_plain_page_in_the_admin() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("ops"))
    with locked("systemtasks_systemtask"):
        answer = client.get(ADMIN)
    assert answer.status_code == 503
    assert answer["Content-Type"] == "text/plain"
    assert b"would take too long" in answer.content
    assert b"Traceback" not in answer.content


@pytest.mark.slow
@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("selected", [False, True])
def test_what_somebody_deletes_in_the_admin_may_take_longer(selected: bool) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("ops"))
    leaver = User.objects.create_user("leaver")
    path, form = f"/admin/auth/user/{leaver.pk}/delete/", {"post": "yes"}
    if selected:
        path = "/admin/auth/user/"
        form |= {"action": "delete_selected", "_selected_action": str(leaver.pk)}
    with locked("systemtasks_service.knox_authtoken") as holder:

        def waits() -> bool:
            return bool(query(environment()["DATABASE_URL"], WAITING))

        def release() -> None:
            waited.append(eventually(waits))
            holder.rollback()

        waited: list[bool] = []
        releasing = threading.Thread(target=release)
        releasing.start()
        answer = client.post(path, form)
        releasing.join()
    assert waited == [True]
    assert answer.status_code == 302
    assert not User.objects.filter(pk=leaver.pk).exists()


@pytest.mark.django_db
def test_no_statement_begins_once_those_of_the_request_took_the_limit(settings: Settings) -> None:
    settings.WEB_STATEMENT_SECONDS = 1
    executed: list[int] = []

    def view(_: HttpRequest) -> HttpResponse:
        for number in range(9):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.4)")
            executed.append(number)
        return HttpResponse()

    with pytest.raises(QueryTooSlow):
        LimitRequests(view)(RequestFactory().get(ADMIN))
    assert executed == [0, 1, 2]
    with connection.cursor() as cursor:  # the next request is not affected
        cursor.execute("SELECT 1")


@pytest.mark.django_db
def test_page_with_many_statements_that_take_too_long_together_is_refused(
    settings: Settings,
) -> None:
    token = factories.token(factories.user("reader", "view"))
    api, admin = Client(headers={"authorization": f"Bearer {token}"}), Client()
    admin.force_login(User.objects.create_superuser("ops"))
    settings.WEB_STATEMENT_SECONDS = 1e-9
    answer = api.get(TASKS)
    assert (answer.status_code, answer.json()["code"]) == (503, "query_timeout")
    answer = admin.get(ADMIN)
    assert (answer.status_code, answer["Content-Type"]) == (503, "text/plain")
    settings.WEB_STATEMENT_SECONDS = 0
    assert (api.get(TASKS).status_code, admin.get(ADMIN).status_code) == (200, 200)


def test_migrations_workers_and_retention_have_no_limit() -> None:
    assert connection.statement_seconds == 0  # type: ignore[attr-defined]
    assert "statement_timeout" not in str(connection.get_connection_params())
    assert django_settings.WEB_STATEMENT_SECONDS == 5


# Logins


def post_to_login() -> HttpRequest:
    request = RequestFactory().post(LOGIN)
    request.resolver_match = resolve(LOGIN)
    return request


def test_one_login_at_a_time_is_checked() -> None:
    middleware = LimitRequests(lambda _: HttpResponse())
    answers: list[HttpResponseBase | None] = []

    def view(request: HttpRequest) -> HttpResponse:
        if not answers:  # as if another thread came meanwhile
            answers.append(middleware.process_view(post_to_login(), view, (), {}))
        return HttpResponse("logged in")

    answers.append(middleware.process_view(post_to_login(), view, (), {}))
    answers.append(middleware.process_view(post_to_login(), view, (), {}))
    busy, *others = answers
    assert busy is not None
    assert busy.status_code == 429
    assert busy["Retry-After"] == "1"
    assert [getattr(other, "content", None) for other in others] == [b"logged in"] * 2


def test_a_lookup_that_postgres_has_no_function_for_is_400(admin_client: Client) -> None:
    with transaction.atomic():
        response = admin_client.get("/admin/auth/user/?username__unaccent=x")
        transaction.set_rollback(True)
    assert response.status_code == 400
    assert response.content.startswith(b"There is no such page")
