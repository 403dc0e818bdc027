"""Every end of a run, in every pool: the cells of docs/celery-signals.md.

The tests share one worker a pool, so each looks only at the runs that it has sent itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from celery import chain, group
from django.contrib.auth import get_user_model
from knox.models import AuthToken

from config.celery import app
from systemtasks.ids import system_task_uuid
from systemtasks.models import TaskRun
from tests.tasks import succeed
from tests.waiting import eventually
from tests.workers import OLDEST, POOLS, Worker, outcome, send

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


class End(NamedTuple):
    """How an attempt ends."""

    state: str
    status: str
    exception: str = ""


ENDS: dict[str, tuple[tuple[Any, ...], list[End]]] = {
    "tests.succeed": ((), [End("success", "successful")]),
    "tests.warn": ((), [End("success", "warning")]),
    "tests.fail": (
        (),
        [End("failure", "error", "tests.tasks.ShopError: order 7: no such order")],
    ),
    "tests.fail_unpicklable": ((), [End("failure", "error", "tests.tasks.UnpicklableError: kept")]),
    "tests.chat": ((1,), [End("failure", "error", "TypeError: chat() missing 1 required")]),
    "tests.retry": (
        (1,),
        [End("retry", "warning", "ConnectionError: away"), End("success", "successful")],
    ),
    "tests.give_up": (
        (),
        [
            End("retry", "warning", "ConnectionError: still away"),
            End("failure", "error", "ConnectionError: still away"),
        ],
    ),
    "tests.ignore": ((), [End("ignored", "unknown")]),
    "tests.reject": ((), [End("rejected", "warning")]),
    "tests.nobody_knows": (
        (),
        [End("failure", "error", "celery.exceptions.NotRegistered: 'tests.nobody_knows'")],
    ),
}


WORKERS: dict[str, tuple[tuple[str, ...], str | None]] = {
    **{pool: (options, None) for pool, options in POOLS.items()},
    "oldest": (POOLS["prefork"], OLDEST),
}
IN_PREFORK = pytest.mark.parametrize("worker", ["prefork", "oldest"], indirect=True, scope="module")
"""For ends that only the prefork pool has, or that are the same in the other pools."""


@pytest.fixture(scope="module", params=WORKERS)
def worker(
    request: pytest.FixtureRequest, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp(request.param) / "worker.log"
    options, packages = WORKERS[request.param]
    with Worker(log, *options, packages=packages) as running:
        yield running


def ends(celery_id: str) -> list[End]:
    """Return the ends of its attempts, in order. Leave out those that have not ended."""
    ended = TaskRun.objects.filter(celery_id=celery_id, finish_timestamp__isnull=False)
    runs = ended.order_by("attempt", "sort_timestamp")
    return [End(run.state, run.status, run.exception) for run in runs]


def fit(found: list[End], expected: list[End]) -> bool:
    return len(found) == len(expected) and all(
        one[:2] == other[:2] and one.exception.startswith(other.exception)
        for one, other in zip(found, expected, strict=True)
    )


def ended(celery_id: str, *expected: End) -> bool:
    """Return True if its attempts come to these ends."""
    return eventually(lambda: fit(ends(celery_id), list(expected)))


def last_event(run: TaskRun) -> str:
    event: str = run.messages[-1]["event"]
    return event


SUCCESS = End("success", "successful")
RETRY = End("retry", "warning", "ConnectionError: away")


def test_every_outcome_is_recorded(worker: Worker) -> None:
    sent = {name: app.send_task(name, args=args).id for name, (args, _) in ENDS.items()}

    for name, celery_id in sent.items():
        assert ended(celery_id, *ENDS[name][1]), (name, ends(celery_id))


def test_queryset_that_a_task_logs_breaks_no_transaction_of_it(worker: Worker) -> None:
    celery_id = send("tests.log_lazily")
    run = outcome(worker, celery_id)

    assert (run.state, run.exception) == ("success", "")
    said = [(message["event"], message["attributes"]) for message in run.messages]
    assert said == [
        ("Looking", {"tasks": "<QuerySet>", "nested": [{"tasks": "<QuerySet>"}]}),
        ("Found", {"tasks": "<QuerySet>", "first": "<SimpleLazyObject>"}),
        ("<QuerySet>", {}),
    ]
    assert run.system_task.uid == ""


def test_expired_and_revoked_tasks_are_recorded(worker: Worker) -> None:
    expired = app.send_task("tests.succeed", expires=-1).id
    assert eventually(lambda: bool(app.control.ping(timeout=1)))
    app.control.revoke("to-be-revoked")
    assert eventually(lambda: "to-be-revoked" in worker.log.read_text())
    app.send_task("tests.succeed", task_id="to-be-revoked")

    for celery_id in (expired, "to-be-revoked"):
        assert ended(celery_id, End("revoked", "warning"))


def test_canvas_is_recorded_as_single_runs_of_one_root(worker: Worker) -> None:
    one_after_another = chain(succeed.si(1), succeed.si(2), succeed.si(3))()
    together = group(succeed.si(10), succeed.si(11))()
    last = one_after_another.id
    assert ended(last, SUCCESS)

    run = TaskRun.objects.get(celery_id=last)
    chained = TaskRun.objects.of_root(run.root)
    assert eventually(lambda: chained.filter(state="success").count() == 3)
    by_number = {item.args[0]: item for item in chained if item.args}
    assert by_number[2].parent_id == by_number[1].celery_id
    assert by_number[3].parent_id == by_number[2].celery_id
    for item in together.results:
        assert ended(item.id, SUCCESS)


def test_call_of_a_task_within_a_task_is_no_run_of_its_own(worker: Worker) -> None:
    celery_id = app.send_task("tests.call").id
    assert ended(celery_id, SUCCESS)

    run = TaskRun.objects.get(celery_id=celery_id)
    assert not TaskRun.objects.filter(parent_id=celery_id).exists()
    assert [message["event"] for message in run.messages][:2] == [
        "Hello 4",
        "Hello from another logger",
    ]


def test_run_within_a_run_keeps_its_messages_to_itself(worker: Worker) -> None:
    celery_id = app.send_task("tests.nest").id
    assert ended(celery_id, SUCCESS)
    assert ended("inner", SUCCESS)

    outer = TaskRun.objects.get(celery_id=celery_id)
    assert [message["event"] for message in outer.messages] == ["Before", "After"]


def test_each_execution_of_a_message_is_a_run(worker: Worker, tmp_path: Path) -> None:
    celery_id = app.send_task("tests.requeue", args=[str(tmp_path / "marker")]).id
    assert ended(celery_id, End("rejected", "warning"), SUCCESS), ends(celery_id)

    first, second = TaskRun.objects.filter(celery_id=celery_id).order_by("number")
    assert [(run.attempt, run.number, run.redelivered) for run in (first, second)] == [
        (1, 1, False),
        (1, 2, True),
    ]
    assert (first.executions, second.message, second.id) == (2, first.id, second.execution)
    assert first.execution not in (None, first.id, second.execution)
    assert second.messages[0]["event"].startswith("The broker has delivered this message before")


def test_task_that_another_replaces_keeps_its_run(worker: Worker) -> None:
    celery_id = app.send_task("tests.replace").id
    assert ended(celery_id, End("ignored", "unknown"), SUCCESS), ends(celery_id)

    old, new = TaskRun.objects.filter(celery_id=celery_id).order_by("id")
    assert [run.system_task.name for run in (old, new)] == ["tests.replace", "tests.succeed"]
    assert (old.replaced_by, new.replaces) == (new.id, old.id)
    assert (old.parent_run, new.parent_run) == (None, None)


def test_one_celery_id_for_many_messages_is_a_run_for_each(worker: Worker) -> None:
    celery_id = str(uuid4())
    for number in range(3):
        app.send_task("tests.succeed", args=[number], task_id=celery_id)
    assert ended(celery_id, SUCCESS, SUCCESS, SUCCESS)

    runs = TaskRun.objects.filter(celery_id=celery_id)
    assert sorted(run.args[0] for run in runs if run.args) == [0, 1, 2]
    assert {run.number for run in runs} == {1}


def test_message_without_our_headers_is_a_run_with_an_id_of_its_own(worker: Worker) -> None:
    celery_id = str(uuid4())
    message = app.amqp.as_task_v2(celery_id, "tests.succeed", (7,), {})
    with app.connection_for_write() as broker:
        broker.Producer().publish(
            message.body, routing_key="systemtasks", headers=message.headers, serializer="json"
        )
    run = outcome(worker, celery_id)

    assert (run.state, run.args, run.id) == ("success", [7], run.execution)


def test_attempts_are_rows_with_queue_worker_and_wait(worker: Worker) -> None:
    celery_id = send("tests.retry", 2)
    assert ended(celery_id, RETRY, RETRY, SUCCESS), worker.log.read_text()

    runs = list(TaskRun.objects.filter(celery_id=celery_id).order_by("attempt"))
    assert [run.attempt for run in runs] == [1, 2, 3]
    for run in runs:
        assert run.queue == "systemtasks"
        assert run.worker.startswith("celery@")
        assert run.wait is not None
        assert 0 <= run.wait < 10
        assert run.sent_timestamp
        assert run.start_timestamp
        assert run.sent_timestamp < run.start_timestamp
    assert [message["event"] for message in runs[0].messages] == [
        "Attempt 1",
        "Retry in 0.05 s: ConnectionError: away",
    ]


def test_simultaneous_runs_keep_their_messages_apart(worker: Worker) -> None:
    sent = [send("tests.chat", number, 20) for number in range(8)]

    for number, celery_id in enumerate(sent):
        assert ended(celery_id, SUCCESS), worker.log.read_text()
        run = TaskRun.objects.get(celery_id=celery_id)
        assert run.args == [number, 20]
        assert {message["event"] for message in run.messages} == {f"I am {number}"}
        assert len(run.messages) == 20


def test_what_a_tasks_own_threads_log_is_in_its_run(worker: Worker) -> None:
    sent = [send("tests.start_threads", number) for number in range(5)]

    for number, celery_id in enumerate(sent):
        assert ended(celery_id, SUCCESS), worker.log.read_text()
        run = TaskRun.objects.get(celery_id=celery_id)
        assert [message["event"] for message in run.messages] == [
            f"Thread of {number}",
            f"Pool of {number}",
        ]


@pytest.fixture
def token() -> str:
    admin = get_user_model().objects.create_superuser("admin")
    _, token = AuthToken.objects.create(user=admin, expiry=None)
    return str(token)


def get(url: str, token: str) -> Any:
    request = Request(url, headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=10) as response:
        return json.load(response)


def test_record_of_a_task_that_ran_is_read_over_http(
    worker: Worker, live_server: Any, token: str
) -> None:
    sent = {
        "tests.succeed": send("tests.succeed", 3, label="x"),
        "tests.fail": send("tests.fail"),
        "tests.retry": send("tests.retry", 1),
        "tests.warn": send("tests.warn"),
    }
    for name, celery_id in sent.items():
        assert ended(celery_id, *ENDS[name][1]), worker.log.read_text()

    api = f"{live_server.url}/api/v3/events/system_tasks"
    success = get(f"{api}/{system_task_uuid('tests.succeed')}/", token)
    assert success["name"] == success["full_name"] == "tests.succeed"
    assert success["description"] == "Say hello."
    assert success["status"] == "successful"
    assert [message["event"] for message in success["messages"]] == [
        "Hello 3",
        "Hello from another logger",
        "Hello from print",
    ]
    assert success["messages"][0]["attributes"] == {"label": "x"}
    assert success["expiring"] is True

    failure = get(f"{api}/{system_task_uuid('tests.fail')}/", token)
    assert failure["status"] == "error"
    last = failure["messages"][-1]
    assert last["event"] == "tests.tasks.ShopError: order 7: no such order"
    assert "KeyError: 'order'" in last["attributes"]["exception"]["traceback"]

    assert get(f"{api}/{system_task_uuid('tests.warn')}/", token)["status"] == "warning"
    assert get(f"{api}/{system_task_uuid('tests.retry')}/", token)["status"] == "successful"


@pytest.mark.parametrize("name", ["tests.die", "tests.exit"])
@IN_PREFORK
def test_child_that_is_gone_is_recorded_as_error(worker: Worker, name: str) -> None:
    run = outcome(worker, send(name))

    assert (run.state, run.status, run.attempt) == ("failure", "error", 1)
    # Celery 5.6's main process does not report an exit.
    heard_by_the_child = name == "tests.exit" and worker.is_of_celery_5_6
    assert ("SystemExit: 3" if heard_by_the_child else "WorkerLostError") in run.exception
    assert (run.queue, run.args, run.kwargs) == ("systemtasks", [], {})
    assert run.worker.startswith("celery@")


@IN_PREFORK
def test_hard_time_limit_is_recorded_as_error(worker: Worker) -> None:
    sent = app.send_task("tests.sleep", args=(60,), time_limit=1)
    run = outcome(worker, str(sent.id))

    assert (run.state, run.status) == ("failure", "error")
    assert "TimeLimitExceeded" in run.exception
    assert run.duration is not None
    assert 0.9 < run.duration < 30


@IN_PREFORK
def test_task_that_is_terminated_while_it_runs_is_recorded_as_error(worker: Worker) -> None:
    before = len(worker.log.read_text())
    celery_id = send("tests.sleep", 60)
    assert eventually(lambda: "Sleeping" in worker.log.read_text()[before:])
    app.control.revoke(celery_id, terminate=True)
    run = outcome(worker, celery_id)

    assert (run.state, run.status) == ("revoked", "error")
    assert last_event(run) == "Terminated by SIGTERM while it ran"


@IN_PREFORK
def test_task_that_is_revoked_before_its_start_is_recorded_as_warning(worker: Worker) -> None:
    celery_id = str(uuid4())
    assert eventually(lambda: bool(app.control.ping(timeout=1)))  # it receives broadcasts
    app.control.revoke(celery_id)
    assert eventually(lambda: celery_id in worker.log.read_text()), worker.log.read_text()
    app.send_task("tests.succeed", task_id=celery_id)
    run = outcome(worker, celery_id)

    assert (run.state, run.status) == ("revoked", "warning")
    assert last_event(run) == "Revoked before it started"


@IN_PREFORK
def test_expired_task_is_recorded_as_warning(worker: Worker) -> None:
    run = outcome(worker, str(app.send_task("tests.succeed", expires=-1).id))

    assert (run.state, run.status) == ("revoked", "warning")
    assert last_event(run) == "Expired before it started"


@IN_PREFORK
def test_unregistered_task_is_recorded_as_error(worker: Worker) -> None:
    run = outcome(worker, send("tests.nobody_knows"))

    assert (run.state, run.status) == ("failure", "error")
    assert run.system_task.name == "tests.nobody_knows"
    assert "nobody_knows" in run.exception


@IN_PREFORK
def test_soft_time_limit_is_recorded_as_error(worker: Worker) -> None:
    celery_id = app.send_task("tests.sleep", args=[60], soft_time_limit=1).id

    run = outcome(worker, celery_id)

    assert (run.state, run.status) == ("failure", "error")
    assert "SoftTimeLimitExceeded" in run.exception
