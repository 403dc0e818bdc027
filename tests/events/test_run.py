"""POST /api/v3/events/system_tasks/{uuid}/run/: what is sent, or the error if nothing is."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import celery
import pytest
import redis
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import DatabaseError
from django.test import Client
from kombu import Connection, Exchange, Queue
from kombu.connection import ConnectionPool
from kombu.pools import ProducerPool
from kombu.transport.redis import Channel as RedisChannel

from systemtasks.models import ScheduleEntry, SystemTask
from tests import factories, processes
from tests.waiting import eventually

URL = "/api/v3/events/system_tasks"
pytestmark = pytest.mark.django_db
QUEUE = "tests-rerun"
FEEDS = "tests-rerun-feeds"
KNOWN = ["app.sync", "tests.clean_up"]


def nothing() -> None:
    """Do nothing. The tasks of the app call this."""


@pytest.fixture
def silent_app(db: None) -> Iterator[celery.Celery]:
    """Make an app without a worker the current one. It uses the real broker."""
    before = celery.current_app._get_current_object()  # type: ignore[attr-defined]
    settings.EMBEDDED.attach()
    app = celery.Celery("tests", broker=settings.CELERY_BROKER_URL)
    app.conf.control_exchange = "tests"
    app.set_current()
    with Connection(settings.CELERY_BROKER_URL) as connection:
        for name in (QUEUE, FEEDS):
            connection.SimpleQueue(name).clear()
    yield app
    before.set_current()


@pytest.fixture
def app(silent_app: celery.Celery) -> Iterator[celery.Celery]:
    """Yield the app with a worker that knows the tasks in KNOWN."""
    with answering(silent_app, KNOWN):
        yield silent_app


@contextmanager
def answering(app: celery.Celery, *answers: Any) -> Iterator[None]:
    """Run a worker for each of these answers, which it gives if it is asked for its tasks."""
    with ExitStack() as workers:
        for number, answer in enumerate(answers):
            workers.enter_context(_answering(app, f"worker-{number}@host", answer))
        yield


@contextmanager
def _answering(app: Any, name: str, answer: Any) -> Iterator[None]:
    listening, over = threading.Event(), threading.Event()

    def listen() -> None:
        with app.connection_for_read() as connection, connection.channel() as channel:
            handlers = {"registered": lambda _, **__: answer}
            mailbox = app.control.mailbox(connection)
            mailbox.producer_pool = None  # the process that asks has one, and this is another
            mailbox.Node(name, channel=channel, handlers=handlers).listen()
            while not over.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.05)
                listening.set()

    worker = threading.Thread(target=listen)
    worker.start()
    try:
        assert listening.wait(30)
        yield
    finally:
        over.set()
        worker.join()


def sent() -> list[tuple[str, Any, Any]]:
    """Return the name, the arguments and the keyword arguments of each message in the queue."""
    return [(message.headers["task"], *message.decode()[:2]) for message in messages()]


def messages(name: str = QUEUE) -> list[Any]:
    """Return the messages in the queue."""
    found = []
    with Connection(settings.CELERY_BROKER_URL) as connection:
        queue = connection.SimpleQueue(name)
        with suppress(queue.Empty):
            while message := queue.get(block=False):
                message.ack()
                found.append(message)
        queue.close()
    return found


RUNS_URL = "/api/v3/events/task_runs"


def run(client: Client, task: SystemTask, **options: Any) -> Any:
    return client.post(f"{URL}/{task.uuid}/run/", **options)


@pytest.mark.usefixtures("app")
def test_the_last_runs_arguments_are_sent_anew_to_its_queue(runner: Client) -> None:
    task = factories.system_task("app.sync")
    factories.task_run(
        task, args=["old"], queue="other", start_timestamp=factories.START - timedelta(days=1)
    )
    factories.task_run(task, args=[1, {"a": None}], kwargs={"full": True}, queue=QUEUE)
    answer = run(runner, task)
    assert answer.status_code == 204
    assert answer.content == b""
    assert sent() == [("app.sync", [1, {"a": None}], {"full": True})]


@pytest.mark.usefixtures("app")
def test_a_run_that_never_began_is_not_the_last_where_one_did(runner: Client) -> None:
    task = factories.system_task("app.sync")
    factories.task_run(task, args=["began"], queue=QUEUE)
    factories.task_run(task, args=["revoked"], queue=QUEUE, start_timestamp=None, state="revoked")
    assert run(runner, task).status_code == 204
    assert sent() == [("app.sync", ["began"], {})]


@pytest.mark.usefixtures("app")
def test_of_runs_that_never_began_the_last_sent_is_taken(runner: Client) -> None:
    task = factories.system_task("app.sync")
    for text in ("first", "last"):
        factories.task_run(task, args=[text], queue=QUEUE, start_timestamp=None, state="revoked")
    assert run(runner, task).status_code == 204
    assert sent() == [("app.sync", ["last"], {})]


@pytest.mark.usefixtures("app")
def test_what_the_message_carried_is_sent_again(runner: Client) -> None:
    task = factories.system_task("app.sync")
    carried = {
        "headers": {"tenant": "acme", "locale": "de", "trace": {"id": 1}},
        "priority": 6,
        "expires": 300.0,
        "time_limit": 60,
        "soft_time_limit": 30.5,
        "content_type": "application/x-yaml",
    }
    factories.task_run(task, args=[1], queue=QUEUE, sent_options=carried)
    began = datetime.now(UTC)
    assert run(runner, task).status_code == 204
    (message,) = messages()
    headers = message.headers
    assert {name: headers[name] for name in ("tenant", "locale", "trace")} == carried["headers"]
    assert message.properties["priority"] == 6
    assert headers["timelimit"] == [60, 30.5]
    lifetime = datetime.fromisoformat(headers["expires"]) - began
    assert timedelta(seconds=299) < lifetime < timedelta(seconds=310)
    assert message.content_type == "application/x-yaml"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("carried", "told"),
    [
        (None, "its headers, priority, expiry, time limits and serializer"),
        ({"missing": ["the header 'tenant'"]}, "Missing: the header 'tenant'."),
        ({"content_type": "application/x-own"}, "No serializer is known here"),
        ({"exchange": "elsewhere", "routing_key": "a.b"}, "The exchange elsewhere"),
    ],
)
def test_a_message_that_is_not_on_record_as_it_was_is_400(
    runner: Client, carried: dict[str, Any] | None, told: str
) -> None:
    task = factories.system_task("app.sync")
    queue = "" if carried and "exchange" in carried else QUEUE
    factories.task_run(task, queue=queue, sent_options=carried)
    answer = run(runner, task)
    assert answer.status_code == 400
    assert told in answer.json()["non_field_errors"][0]
    assert sent() == []


def test_the_exchange_and_the_routing_key_are_those_of_the_message(
    runner: Client, app: celery.Celery
) -> None:
    exchange = Exchange("tests-rerun", type="topic")
    app.conf.task_queues = [Queue("celery"), Queue(FEEDS, exchange, routing_key="feed.#")]
    with Connection(settings.CELERY_BROKER_URL) as connection:
        app.amqp.queues[FEEDS](connection.default_channel).declare()
    task = factories.system_task("app.sync")
    carried = {"exchange": "tests-rerun", "routing_key": "feed.tsv.daily"}
    factories.task_run(task, queue=FEEDS, sent_options=carried)
    assert run(runner, task).status_code == 204
    (message,) = messages(FEEDS)
    assert message.delivery_info["routing_key"] == "feed.tsv.daily"
    assert message.delivery_info["exchange"] == "tests-rerun"


@pytest.mark.usefixtures("app")
def test_a_delay_that_is_over_is_not_sent_again(runner: Client) -> None:
    task = factories.system_task("app.sync")
    key = "0." * 27 + f"1.{QUEUE}"
    carried = {"exchange": "celery_delayed_delivery", "routing_key": key}
    factories.task_run(task, queue=QUEUE, sent_options=carried)
    assert run(runner, task).status_code == 204
    assert len(sent()) == 1


@pytest.mark.usefixtures("app")
def test_any_run_is_sent_again_with_its_own_arguments(runner: Client) -> None:
    task = factories.system_task("app.sync")
    first = factories.task_run(
        task, args=["first"], queue=QUEUE, start_timestamp=factories.START - timedelta(days=1)
    )
    factories.task_run(task, args=["last"], queue=QUEUE)
    answer = runner.post(f"{RUNS_URL}/{first.pk}/run/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert sent() == [("app.sync", ["first"], {})]


@pytest.mark.usefixtures("app")
def test_a_run_whose_arguments_are_not_intact_is_400(runner: Client) -> None:
    task = factories.system_task("app.sync")
    first = factories.task_run(task, args=["***"], queue=QUEUE, arguments_intact=False)
    factories.task_run(task, args=["last"], queue=QUEUE)
    answer = runner.post(f"{RUNS_URL}/{first.pk}/run/")
    assert answer.status_code == 400
    assert answer.json()["non_field_errors"][0].startswith("The arguments of this run are not")
    assert sent() == []


def test_an_unknown_run_is_404_and_viewing_is_no_permission_to_run_it(
    runner: Client, reader: Client
) -> None:
    run_id = factories.task_run(factories.system_task("app.sync")).pk
    assert runner.post(f"{RUNS_URL}/{uuid4()}/run/").status_code == 404
    assert reader.post(f"{RUNS_URL}/{run_id}/run/").status_code == 403


def test_a_task_of_another_app_is_sent_by_that_app(
    runner: Client, silent_app: celery.Celery
) -> None:
    other = celery.Celery("other", broker=settings.CELERY_BROKER_URL, set_as_current=False)
    other.conf.control_exchange = "tests-other"
    other.conf.task_routes = {"other.pay": {"queue": QUEUE}}
    other.task(name="other.pay", shared=False)(nothing)
    other.finalize()
    silent_app.conf.update(broker_url="redis://127.0.0.1:1")  # where nobody listens
    task = factories.system_task("other.pay")
    factories.task_run(task, queue="")
    assert run(runner, task).status_code == 204
    assert sent() == [("other.pay", [], {})]


def scheduled(entry: str, **fields: Any) -> ScheduleEntry:
    """Return a saved entry of the schedule."""
    defaults: dict[str, Any] = {
        "app": "tests",
        "task": "app.sync",
        "args": [1],
        "kwargs": {"since": "2026-07-01"},
        "arguments_intact": True,
        "sent_options": {"queue": QUEUE, "types": [[["kwargs", "since"], "date"]]},
    }
    return ScheduleEntry.objects.create(entry=entry, **{**defaults, **fields})


def never_run(uid: str = "") -> SystemTask:
    """Return a saved task that is known from the schedule only."""
    return factories.system_task("app.sync", uid, status="unknown", messages=[])


@pytest.mark.usefixtures("app")
def test_a_task_that_never_ran_is_sent_as_beat_would(runner: Client) -> None:
    task = never_run("ldap")
    options = {"queue": QUEUE, "types": [[["kwargs", "since"], "date"]], "priority": 3}
    options |= {"headers": {"tenant": str(UUID(int=1))}, "header_types": [[["tenant"], "uuid"]]}
    for number in (1, 2):  # alike
        scheduled(f"nightly {number}", uid="ldap", sent_options=options)
    scheduled("of another uid", args=["other"])
    scheduled("of another task", task="app.other", uid="ldap")
    assert run(runner, task).status_code == 204
    (message,) = messages()
    assert message.headers["task"] == "app.sync"
    assert message.headers["tenant"] == UUID(int=1)
    assert message.properties["priority"] == 3
    assert message.decode()[:2] == [[1], {"since": date(2026, 7, 1)}]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("differing", "sentence"),
    [
        ({"args": [2]}, "differ in their arguments or options: first, second."),
        ({"sent_options": {}}, "differ in their arguments or options: first, second."),
        ({"arguments_intact": False}, "differ in their arguments or options: first, second."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_task_whose_entries_differ_is_400(
    runner: Client, differing: dict[str, Any], sentence: str
) -> None:
    task = never_run()
    scheduled("first")
    scheduled("second", **differing)
    answer = run(runner, task)
    assert (answer.status_code, sent()) == (400, [])
    assert sentence in answer.json()["non_field_errors"][0]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"arguments_intact": False}, "The arguments of the entry nightly of the schedule are not"),
        ({"sent_options": None}, "what the message of the entry nightly of the schedule carried"),
        ({"sent_options": {"missing": ["the queue"]}}, "Missing: the queue."),
    ],
    ids=repr,
)
def test_an_entry_that_is_not_on_record_as_it_is_is_400(
    runner: Client, fields: dict[str, Any], sentence: str
) -> None:
    task = never_run()
    scheduled("nightly", **fields)
    answer = run(runner, task)
    assert (answer.status_code, sent()) == (400, [])
    assert sentence in answer.json()["non_field_errors"][0]


def test_a_run_of_the_release_before_says_what_to_do(runner: Client) -> None:
    task = factories.system_task("app.sync")
    factories.task_run(task, queue=QUEUE, sent_options=None)
    (sentence,) = run(runner, task).json()["non_field_errors"]
    assert sentence.endswith("Send the task from the project itself: it will be on record.")


@pytest.mark.usefixtures("app")
def test_a_body_is_ignored(runner: Client) -> None:
    task = factories.system_task("app.sync")
    factories.task_run(task, queue=QUEUE)
    assert run(runner, task, data="{nonsense", content_type="text/plain").status_code == 204
    assert len(sent()) == 1


@pytest.mark.usefixtures("app")
def test_a_run_that_had_no_queue_goes_where_the_app_sends_its_name(
    runner: Client, app: celery.Celery
) -> None:
    app.conf.task_routes = {"app.sync": {"queue": QUEUE}}
    task = factories.system_task("app.sync")
    factories.task_run(task, queue="")
    assert run(runner, task).status_code == 204
    assert len(sent()) == 1


@pytest.mark.usefixtures("app")
def test_arguments_that_are_not_intact_are_never_sent(runner: Client) -> None:
    task = factories.system_task()
    factories.task_run(task, queue=QUEUE, args=["***"], arguments_intact=False)
    answer = run(runner, task)
    assert answer.status_code == 400
    assert answer.json() == {
        "non_field_errors": [
            "The arguments of this task's last run are not on record as they were: "
            "they were not recorded, or a part of them was masked or cut."
        ],
        "code": "invalid",
    }
    assert sent() == []


def test_a_task_with_no_run_on_record_is_400(runner: Client) -> None:
    answer = run(runner, factories.system_task())
    assert answer.status_code == 400
    assert answer.json() == {
        "non_field_errors": [
            "No run of this task is on record, and no entry of the schedule names it, "
            "so its arguments are unknown."
        ],
        "code": "invalid",
    }


UNREGISTERED = {
    "state": "failure",
    "status": "error",
    "args": None,
    "kwargs": None,
    "arguments_intact": False,
    "exception": "celery.exceptions.NotRegistered: 'app.gone'",
}
NO_WORKER = {"non_field_errors": ["No worker knows this task (any longer)."], "code": "invalid"}


@pytest.mark.usefixtures("silent_app")
@pytest.mark.parametrize("uid", ["", "ldap"])
def test_a_task_that_no_worker_knew_the_last_time_is_400(runner: Client, uid: str) -> None:
    task = factories.system_task("app.gone", uid)
    factories.task_run(task, queue=QUEUE)
    unnamed = factories.system_task("app.gone") if uid else task
    later = factories.START + timedelta(days=1)
    factories.task_run(
        unnamed, queue=QUEUE, **UNREGISTERED, start_timestamp=later, finish_timestamp=later
    )
    answer = run(runner, task)
    assert (answer.status_code, answer.json()) == (400, NO_WORKER)
    assert sent() == []


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([["app.sync"], ["app.gone_too"]], 400),
        ([["app.sync"], ["app.gone [rate_limit=1/s]"]], 204),
        ([["app.gone"]], 204),
        ([[]], 400),
        ([{"error": "broken"}], 204),
        ([None], 204),
        ([{"error": "broken"}, ["app.sync"]], 400),
    ],
)
def test_the_workers_are_asked_and_not_this_process(
    runner: Client, silent_app: celery.Celery, answers: list[Any], status: int
) -> None:
    for name in ("app.gone", "app.sync"):
        silent_app.task(name=name, shared=False)(nothing)
    task = factories.system_task("app.gone")
    factories.task_run(task, queue=QUEUE)
    with answering(silent_app, *answers):
        answer = run(runner, task)
    assert answer.status_code == status
    assert len(sent()) == (status == 204)
    if status == 400:
        assert answer.json() == NO_WORKER


def test_celery_s_own_tasks_are_known_to_a_worker(
    runner: Client, silent_app: celery.Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("systemtasks.rerun.ANSWER_TIMEOUT", 30.0)  # a busy machine is slow
    task = factories.system_task("celery.backend_cleanup")
    factories.task_run(task, queue=QUEUE)
    command = ["worker", "--pool", "solo", "--without-mingle", "--without-gossip"]
    url = settings.CELERY_BROKER_URL
    program = [sys.executable, "-m", "celery", "--broker", url, *command, "--loglevel", "INFO"]
    variables = {"CELERY_CONFIG_MODULE": "tests.events.celeryconfig"}
    log = tmp_path / "worker.log"
    worker = processes.start(program, log, {**os.environ, **variables})
    try:
        assert eventually(lambda: " ready." in log.read_text()), log.read_text()
        began = time.monotonic()
        assert run(runner, task).status_code == 204
        assert time.monotonic() - began < 30  # as soon as one knows it
    finally:
        processes.stop(worker)
    assert len(sent()) == 1


def test_the_question_goes_by_no_connection_that_may_be_dead(
    runner: Client, app: celery.Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pool(*_: Any, **__: Any) -> None:
        raise AssertionError("A connection of the pool, which has no time-outs")

    monkeypatch.setattr(ConnectionPool, "acquire", no_pool)
    monkeypatch.setattr(ProducerPool, "acquire", no_pool)
    task = factories.system_task("app.sync")
    factories.task_run(task, queue=QUEUE)
    assert run(runner, task).status_code == 204
    assert len(sent()) == 1


@pytest.mark.usefixtures("silent_app")
def test_a_task_is_sent_where_no_worker_answers(runner: Client) -> None:
    task = factories.system_task("app.gone")
    factories.task_run(task, queue=QUEUE)
    assert run(runner, task).status_code == 204
    assert len(sent()) == 1


@pytest.mark.usefixtures("app")
def test_a_run_that_no_worker_knew_is_passed_over_once_its_task_is_known(runner: Client) -> None:
    task = factories.system_task("app.sync")
    factories.task_run(task, args=["kept"], queue=QUEUE)
    factories.task_run(task, queue=QUEUE, **UNREGISTERED)
    assert run(runner, task).status_code == 204
    assert sent() == [("app.sync", ["kept"], {})]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("broker", ["absent", "silent"])
def test_a_broker_that_is_away_is_500_within_seconds(
    runner: Client, silent_app: celery.Celery, broker: str, scheme: str
) -> None:
    task = factories.system_task()
    factories.task_run(task)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if broker == "silent":
            listener.listen()
        silent_app.conf.update(broker_url=f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        answer = run(runner, task)
        seconds = time.monotonic() - began
    assert answer.status_code == 500
    assert answer.json() == {
        "detail": "The task was not enqueued: the broker does not answer.",
        "code": "error",
    }
    assert seconds < {"absent": 3, "silent": 8}[broker]  # CONNECT_TIMEOUT is 2


@pytest.mark.usefixtures("silent_app")
def test_a_reply_that_is_lost_leaves_open_whether_the_task_was_enqueued(
    runner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = RedisChannel._put

    def put_and_lose_the_reply(*args: Any, **options: Any) -> None:
        put(*args, **options)
        raise redis.TimeoutError("Timeout reading from socket")

    monkeypatch.setattr(RedisChannel, "_put", put_and_lose_the_reply)
    task = factories.system_task("app.sync")
    factories.task_run(task, queue=QUEUE)
    answer = run(runner, task)
    assert answer.status_code == 500
    assert answer.json() == {
        "detail": "It is not known whether the task was enqueued: the broker does not answer. "
        "Look at the task's runs before you try again.",
        "code": "error",
    }
    assert len(sent()) == 1


@pytest.mark.parametrize("uuid", ["nonsense", "80f913db-83ed-44d9-a652-75791da3d869"])
def test_viewing_is_no_permission_to_run(reader: Client, uuid: str) -> None:
    answer = reader.post(f"{URL}/{uuid}/run/")
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


def test_running_without_a_token_is_403(db: None) -> None:
    answer = Client(enforce_csrf_checks=True).post(f"{URL}/{uuid4()}/run/")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_authenticated")


def test_running_a_malformed_uuid_is_400(runner: Client) -> None:
    answer = runner.post(f"{URL}/nonsense/run/")
    assert answer.status_code == 400
    assert answer.json() == {"uuid": ["Must be a valid UUID."], "code": "invalid"}


def test_running_an_unknown_task_is_404(runner: Client) -> None:
    answer = runner.post(f"{URL}/{uuid4()}/run/")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Not found.", "code": "not_found"}


def test_getting_the_run_is_405(runner: Client) -> None:
    answer = runner.get(f"{URL}/{uuid4()}/run/")
    assert answer.status_code == 405
    assert answer["Allow"] == "POST, OPTIONS"


@pytest.mark.usefixtures("app")
def test_new_run_and_the_log_of_the_admin_say_whose_token_asked(runner: Client) -> None:
    task = factories.system_task("app.sync")
    before = factories.task_run(task, queue=QUEUE)
    assert run(runner, task).status_code == 204
    assert runner.post(f"{RUNS_URL}/{before.pk}/run/").status_code == 204
    asked = {"run_again_by": "runner", "run_again_of": str(before.pk)}
    found = messages()
    assert [json.loads(one.headers["systemtasks_context"]) for one in found] == [asked, asked]
    entries = LogEntry.objects.order_by("pk")
    assert [entry.get_edited_object() for entry in entries] == [task, before]
    assert {entry.user.get_username() for entry in entries} == {"runner"}
    for message, entry in zip(found, entries, strict=True):
        assert message.headers["id"] in entry.get_change_message()


@pytest.mark.usefixtures("app")
def test_what_is_sent_is_answered_so_although_the_log_of_the_admin_fails(
    runner: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("no table")

    monkeypatch.setattr(LogEntry.objects, "log_actions", fail)
    task = factories.system_task("app.sync")
    factories.task_run(task, queue=QUEUE)
    assert run(runner, task).status_code == 204
    assert len(messages()) == 1
    assert "not in the log of the admin" in caplog.text
