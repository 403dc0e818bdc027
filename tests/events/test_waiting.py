"""`?wait=` on a run's GET, and ETags."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from knox.models import get_token_model
from pytest_django import Settings

from events import views
from events.waiting import listener
from systemtasks.ids import new_uuid
from systemtasks.models import TaskRun
from systemtasks.states import State
from tests import factories
from tests.events.conftest import client_of
from tests.waiting import eventually

URL = "/api/v3/events/task_runs/"
RUNNING = {"state": "running", "status": "unknown", "finish_timestamp": None}


def in_a_thread(ask: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def target() -> None:
        answers.append(ask())
        connection.close()

    thread = threading.Thread(target=target)
    thread.start()
    return thread, answers


@pytest.fixture
def historian() -> Client:
    return client_of("historian", "view_taskrun")


@pytest.fixture
def run() -> TaskRun:
    return factories.task_run(factories.system_task(), **RUNNING)


def connections_that_listen() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_all_who_wait_are_answered_once_the_run_ends_over_one_connection(
    historian: Client, run: TaskRun, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"MOST_WAITING": 3}
    waiting = [in_a_thread(lambda: historian.get(f"{URL}{run.id}/?wait=60")) for _ in range(3)]
    assert eventually(lambda: listener.waiting == 3 and connections_that_listen() == 1)
    assert not any(answers for _, answers in waiting)
    TaskRun.objects.update(state=State.SUCCESS, finish_timestamp=run.start_timestamp)
    for thread, answers in waiting:
        thread.join(30)
        assert answers[0].json()["state"] == "success"
    assert eventually(lambda: connections_that_listen() == 0)


@pytest.mark.django_db(transaction=True)
def test_past_the_bound_the_answer_comes_at_once(
    historian: Client, run: TaskRun, settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"MOST_WAITING": 0}
    assert historian.get(f"{URL}{run.id}/?wait=60").json()["state"] == "running"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_counts_none_of_its_parents_threads_as_waiting() -> None:
    with listener._changed:
        listener.waiting += 1
        try:
            if (child := os.fork()) == 0:
                signal.alarm(30)  # ends the child if it waits for the parent's lock
                with listener._changed:
                    os._exit(listener.waiting)
        finally:
            listener.waiting -= 1
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_lost_connection_is_no_error(historian: Client, run: TaskRun) -> None:
    thread, answers = in_a_thread(lambda: historian.get(f"{URL}{run.id}/?wait=60"))
    assert eventually(lambda: connections_that_listen() == 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
        )
    TaskRun.objects.update(state=State.SUCCESS, finish_timestamp=run.start_timestamp)
    thread.join(30)
    assert answers[0].json()["state"] == "success"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_run_that_does_not_end_in_time_is_answered_as_it_is(
    historian: Client, run: TaskRun
) -> None:
    thread, answers = in_a_thread(lambda: historian.get(f"{URL}{run.id}/?wait=2"))
    assert eventually(lambda: connections_that_listen() == 1)
    thread.join(30)
    assert answers[0].json()["state"] == "running"


@pytest.mark.django_db
def test_who_need_not_wait_does_not(historian: Client) -> None:
    ended = factories.task_run(factories.system_task())
    assert historian.get(f"{URL}{ended.id}/?wait=60").json()["state"] == "success"
    assert historian.get(f"{URL}{new_uuid()}/?wait=60").status_code == 404


def revoke() -> None:
    get_token_model().objects.all().delete()


def take_the_permission_away() -> None:
    User.objects.get().user_permissions.clear()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (revoke, "authentication_failed"),
        (take_the_permission_away, "permission_denied"),
    ],
)
def test_who_may_no_longer_ask_when_the_wait_is_over_is_refused(
    historian: Client,
    run: TaskRun,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[], None],
    code: str,
) -> None:
    monkeypatch.setattr(views, "wait_for_end", lambda run_id, seconds: change())
    answer = historian.get(f"{URL}{run.id}/?wait=60")
    assert (answer.status_code, answer.json()["code"]) == (403, code)


@pytest.mark.django_db
def test_head_does_not_wait(
    historian: Client, run: TaskRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(views, "wait_for_end", lambda run_id, seconds: waited.append(seconds))
    assert historian.head(f"{URL}{run.id}/?wait=60").status_code == 200
    assert historian.head(f"{URL}{run.id}/?wait=61").status_code == 400
    assert waited == []
    assert historian.get(f"{URL}{run.id}/?wait=60").status_code == 200
    assert waited == [60]


@pytest.mark.django_db
@pytest.mark.parametrize("wait", ["", "-1", "61", "1.5", "x", "\u0661"])
def test_a_malformed_wait_is_400(historian: Client, wait: str) -> None:
    answer = historian.get(f"{URL}{new_uuid()}/", {"wait": wait})
    assert answer.status_code == 400
    assert sorted(answer.json()) == ["code", "wait"]


@pytest.mark.django_db
def test_what_has_not_changed_is_304_without_a_body() -> None:
    client = client_of("both", "view", "view_taskrun")
    task = factories.system_task()
    run = factories.task_run(task)
    for path in (
        "system_tasks/",
        f"system_tasks/{task.uuid}/",
        "task_runs/",
        f"task_runs/{run.id}/",
        "task_runs/summary/?started_from=2024-06-01T00:00:00Z&started_until=2024-07-01T00:00:00Z",
    ):
        url = f"/api/v3/events/{path}"
        etag = client.get(url)["ETag"]
        same = client.get(url, headers={"if-none-match": etag})
        assert (same.status_code, same.content, same["ETag"]) == (304, b"", etag)
        other = client.get(url, headers={"if-none-match": '"other"'})
        assert other.status_code == 200
        head = client.head(url)
        assert (head.status_code, head.content, head["ETag"]) == (200, b"", etag)
        same = client.head(url, headers={"if-none-match": etag})
        assert (same.status_code, same["ETag"]) == (304, etag)
        assert client.head(url, headers={"if-none-match": '"other"'}).status_code == 200
    url = f"/api/v3/events/system_tasks/{task.uuid}/"
    etag = client.get(url)["ETag"]
    task.status = "error"
    task.save()
    assert client.get(url, headers={"if-none-match": etag}).status_code == 200


@pytest.mark.django_db
def test_an_etag_opens_no_door() -> None:
    client = client_of("reader", "view")
    url = f"/api/v3/events/system_tasks/{factories.system_task().uuid}/"
    headers = {"if-none-match": client.get(url)["ETag"]}
    assert Client().get(url, headers=headers).status_code == 403
    assert Client().head(url, headers=headers).status_code == 403


@pytest.mark.django_db
def test_a_request_that_waits_counts_once_for_its_tokens_rate() -> None:
    token = factories.token(factories.user("bound", "view_taskrun"))
    factories.grant(token, rate=3)
    client = Client(headers={"authorization": f"Bearer {token}"})
    url = f"{URL}{factories.task_run(factories.system_task()).id}/?wait=1"
    assert [client.get(url).status_code for _ in range(4)] == [200, 200, 200, 429]
