"""The worker's main process records ends of runs that it did not run itself."""

import gc
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals as celery_signals
from celery.app.task import Context
from celery.exceptions import Reject, Retry
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

from config.celery import app
from systemtasks.capture.celery import received, signals
from systemtasks.capture.celery.options import UNNAMED, AnyTask, default_info
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import EXECUTION, RUN_HEADER, SENT_HEADER
from systemtasks.runs.records import RunRecord
from systemtasks.states import State, Status
from systemtasks.storage import leases
from systemtasks.storage.writer import Writer
from tests import tasks
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask


def taken(task: AnyTask, celery_id: str = "id-1", run: str | None = None, **options: Any) -> Any:
    """Return a request of this worker that a child took a minute ago."""
    sent = app.amqp.as_task_v2(celery_id, task.name, (3,), {"label": "x"}, **options)
    if run is not None:
        sent.headers[RUN_HEADER] = run
    message = Message(
        body=json.dumps(sent.body),
        headers=sent.headers,
        properties=sent.properties,
        delivery_info={"routing_key": "priority"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    request = Request(message, app=app, hostname="celery@host", task=app.tasks[task.name])
    request.time_start = (datetime.now(UTC) - timedelta(minutes=1)).timestamp()
    celery_signals.task_received.send(sender=None, request=request)
    return request


def fail(request: Any, error: BaseException) -> None:
    """Send the signal as Celery does, with the request on the task's stack."""
    request.task.request_stack.push(request._context)
    try:
        celery_signals.task_failure.send(
            sender=request.task, task_id=request.id, exception=error, args=[], kwargs={}
        )
    finally:
        request.task.request_stack.pop()


@pytest.fixture(autouse=True)
def _this_is_a_worker(records: list[RunRecord], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leases, "_lease", None)
    leases.take(worker=True)
    yield
    recorder._ended.set(None)


def test_lost_child_is_recorded_with_what_its_message_said(records: list[RunRecord]) -> None:
    request = taken(tasks.succeed, retries=1, parent_id="father")
    fail(request, WorkerLostError("signal 9"))
    (record,) = records

    assert (record.celery_id, record.attempt, record.state) == ("id-1", 2, State.FAILURE)
    assert record.exception.endswith("WorkerLostError: signal 9")
    assert (record.queue, record.worker, record.parent_id) == ("priority", "celery@host", "father")
    assert (record.args, record.kwargs) == ("[3]", '{"label":"x"}')
    assert record.duration == pytest.approx(60, abs=5)
    assert (record.from_main_process, record.lease) == (True, leases.current_lease().id)
    assert not record.provisional


def test_failure_that_is_signalled_twice_is_recorded_once(records: list[RunRecord]) -> None:
    request = taken(tasks.succeed)
    fail(request, TimeLimitExceeded(1))
    fail(request, TimeLimitExceeded(1))

    assert len(records) == 1


def test_second_attempts_time_limit_is_recorded(records: list[RunRecord]) -> None:
    request = taken(tasks.succeed, retries=1)
    # For this error, Celery does not put the request on the task's stack, and sends the signal
    # again.
    celery_signals.task_failure.send(
        sender=request.task, task_id=request.id, exception=TimeLimitExceeded(1)
    )
    fail(request, TimeLimitExceeded(1))

    assert [(record.attempt, record.state) for record in records] == [(2, State.FAILURE)]


@pytest.mark.parametrize("says_which", [True, False])
def test_of_several_deliveries_under_one_id_the_failed_one_is_ended(
    records: list[RunRecord], says_which: bool
) -> None:
    waiting, busy, failed = (taken(tasks.succeed) for _ in range(3))
    waiting.time_start = None
    state.active_requests.add(busy)
    if says_which:
        fail(failed, WorkerLostError("signal 9"))
    else:  # Celery 5.6
        celery_signals.task_failure.send(
            sender=failed.task, task_id=failed.id, exception=WorkerLostError("signal 9")
        )
    (record,) = records

    assert record.execution == failed.request_dict[EXECUTION]
    assert len({one.request_dict[EXECUTION] for one in (waiting, busy, failed)}) == 3


def test_each_delivery_is_an_execution_of_the_same_message(records: list[RunRecord]) -> None:
    first, second = (taken(tasks.succeed, run=str(UUID(int=7))) for _ in range(2))
    fail(first, WorkerLostError("signal 9"))
    fail(second, WorkerLostError("signal 9"))
    one, other = records

    assert one.id == other.id == str(UUID(int=7))
    assert one.execution != other.execution


def test_execution_that_the_worker_lets_go_without_an_end_is_noted() -> None:
    request = taken(tasks.succeed)
    execution = request.request_dict[EXECUTION]
    del request
    gc.collect()

    assert execution in leases.over_for(0)
    assert leases.over_for(0) == []


def test_failure_of_an_unheard_of_request_is_nobodys(records: list[RunRecord]) -> None:
    request = taken(tasks.succeed)
    fail(request, Reject())
    assert records == []
    celery_id = request.id
    del request
    celery_signals.task_failure.send(
        sender=app.tasks["tests.succeed"], task_id=celery_id, exception=ValueError()
    )

    assert records == []
    held = [reference() for reference in received._requests.values()]
    assert celery_id not in [one.id for one in held if one is not None]


def test_retry_after_a_lost_child_ends_the_attempt_as_a_retry(records: list[RunRecord]) -> None:
    request = taken(tasks.succeed)
    reason = Retry(exc=WorkerLostError("signal 9"), when=180)  # type: ignore[arg-type]
    celery_signals.task_retry.send(
        sender=request.task, request=request._context, reason=reason, einfo=None
    )
    (record,) = records

    assert (record.state, record.status) == (State.RETRY, Status.WARNING)
    assert events(record)[0].startswith("Retry in 180 s: ")
    assert events(record)[0].endswith("WorkerLostError: signal 9")


def test_cold_shutdown_ends_the_attempt_as_an_error(
    records: list[RunRecord], caplog: pytest.LogCaptureFixture
) -> None:
    request = taken(tasks.succeed)
    # Celery gives no reason, and sends nothing again.
    celery_signals.task_retry.send(sender=request.task, request=request._context, einfo=None)
    (record,) = records

    assert (record.state, record.status) == (State.FAILURE, Status.ERROR)
    assert record.exception.endswith("WorkerLostError: The worker was shut down while it ran")
    assert "Signal handler" not in caplog.text


@pytest.mark.parametrize(
    ("said", "status", "event"),
    [
        ({"terminated": True, "signum": 15}, Status.ERROR, "Terminated by SIGTERM while it ran"),
        ({"terminated": True, "signum": "KILL"}, Status.ERROR, "Terminated by KILL while it ran"),
        ({"terminated": True}, Status.ERROR, "Terminated by a signal while it ran"),
        ({"expired": True}, Status.WARNING, "Expired before it started"),
        ({}, Status.WARNING, "Revoked before it started"),
    ],
)
def test_revoked_run_says_how(
    records: list[RunRecord], said: dict[str, Any], status: Status, event: str
) -> None:
    request = taken(tasks.succeed)
    celery_signals.task_revoked.send(
        sender=request.task,
        request=request._context,
        **{"terminated": False, "signum": None, "expired": False, **said},
    )
    (record,) = records

    assert (record.state, record.status, events(record)) == (State.REVOKED, status, [event])
    assert (record.from_main_process, record.lease) == (True, leases.current_lease().id)
    assert record.args == "[3]"


def test_unregistered_task_is_recorded_by_its_name(records: list[RunRecord]) -> None:
    sent = app.amqp.as_task_v2("id-1", "elsewhere.task", retries=1)
    message = SimpleNamespace(headers=sent.headers, delivery_info={"routing_key": "celery"})
    celery_signals.task_unknown.send(
        sender=None, name="elsewhere.task", id="id-1", message=message, exc=KeyError("elsewhere")
    )
    (record,) = records

    assert (record.name, record.attempt, record.state) == ("elsewhere.task", 2, State.FAILURE)
    assert (record.queue, record.exception) == (
        "celery",
        "celery.exceptions.NotRegistered: 'elsewhere.task'",
    )


def test_task_that_celery_cannot_begin_is_recorded(records: list[RunRecord]) -> None:
    celery_signals.task_internal_error.send(
        sender=app.tasks["tests.succeed"],
        task_id="id-1",
        args=(3,),
        kwargs=7,
        request={"id": "id-1", "retries": 2, "origin": "web@host"},
        exception=TypeError("kwargs"),
        traceback=None,
        einfo=None,
    )
    (record,) = records

    assert (record.celery_id, record.attempt, record.state) == ("id-1", 3, State.FAILURE)
    assert (record.args, record.sender) == ("[3]", "web@host")
    assert record.exception == "TypeError: kwargs"


@pytest.mark.parametrize("request_", [None, 7, SimpleNamespace(id="id-1")])
def test_internal_error_without_a_request_is_recorded(
    records: list[RunRecord], request_: object
) -> None:
    signals.note_internal_error(
        sender=app.tasks["tests.succeed"],
        task_id="id-1",
        args=None,
        kwargs=None,
        request=request_,
        exception=TypeError("odd"),
    )

    assert [(one.celery_id, one.attempt, one.args) for one in records] == [("id-1", 1, None)]


def test_tasks_that_want_no_record_have_none_in_the_main_process_either(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    task = make_task(lambda: None, systemtasks_record=False)
    request = taken(task)
    celery_signals.task_revoked.send(
        sender=task, request=request._context, terminated=False, signum=None, expired=False
    )
    fail(request, WorkerLostError("signal 9"))
    signals.note_internal_error(
        sender=task, task_id="id-1", args=(), kwargs={}, request=None, exception=TypeError()
    )

    assert records == []


def message(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"headers": {}, "properties": {}, "delivery_info": {"routing_key": "celery"}, **fields}
    )


def test_rejected_message_is_recorded_by_what_its_envelope_says(records: list[RunRecord]) -> None:
    headers = {"id": "id-1", "task": "tests.succeed", "retries": 1, "origin": "web@host"}
    celery_signals.task_rejected.send(
        sender=None, message=message(headers=headers), exc=ValueError("bad ETA")
    )
    (record,) = records

    assert (record.name, record.celery_id, record.attempt) == ("tests.succeed", "id-1", 2)
    assert (record.state, record.status) == (State.REJECTED, Status.WARNING)
    assert (record.exception, record.queue) == ("ValueError: bad ETA", "celery")
    assert record.sender == "web@host"


def test_message_that_is_none_of_celerys_is_recorded_under_no_name(
    records: list[RunRecord],
) -> None:
    celery_signals.task_rejected.send(
        sender=None, message=message(properties={"correlation_id": "foreign"}), exc=None
    )
    (record,) = records

    assert (record.name, record.celery_id) == (UNNAMED, "foreign")
    assert record.exception == "ValueError: This is not a message of Celery's"


@pytest.mark.parametrize(
    "odd",
    [
        {"headers": None, "properties": None, "delivery_info": None},
        {"headers": "text"},
        {"headers": {"id": 7, "task": 7, "retries": "many", "eta": [], "origin": object()}},
        {"headers": {"retries": -1, "task": "", "systemtasks_sent": "yesterday"}},
        {"headers": {"id": "\0\ud800", "eta": "never", "systemtasks_sent": float("nan")}},
    ],
)
def test_odd_envelopes_are_recorded(records: list[RunRecord], odd: dict[str, Any]) -> None:
    celery_signals.task_rejected.send(sender=None, message=message(**odd), exc=None)
    (record,) = records

    assert record.celery_id
    assert (record.attempt, record.name) == (1, UNNAMED)
    assert (record.eta_timestamp, record.sent_timestamp) == (None, None)


@pytest.mark.parametrize("breaks", [False, True])
def test_message_that_cannot_be_decoded_is_recorded_and_reported_in_any_case(
    records: list[RunRecord], monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    reported = []
    if breaks:
        monkeypatch.setattr(received, "undecodable_attempt", None)

    class Consumer:
        app = SimpleNamespace(tasks={}, conf=SimpleNamespace(beat_schedule={}))
        task_consumer = SimpleNamespace(on_decode_error=None)

        def on_decode_error(self, message: object, exc: BaseException) -> None:
            reported.append((message, exc))

    consumer, error, bad = Consumer(), ValueError("no JSON"), message(headers={"id": "id-1"})
    signals._note_undecodable(consumer)
    signals._note_undecodable(consumer)
    consumer.task_consumer.on_decode_error(bad, error)

    noted = [(one.celery_id, one.exception) for one in records]
    assert noted == ([] if breaks else [("id-1", "ValueError: no JSON")])
    assert reported == [(bad, error)]


@pytest.mark.parametrize("retries", [-1, 2**31 - 1, 2**80, "2", 1.5, None, True])
def test_number_of_retries_that_makes_no_sense_is_that_of_a_first_attempt(retries: object) -> None:
    context = Context(id="id-1", retries=retries)
    run = received.attempt(default_info("elsewhere.task"), vars(context), [], {})

    assert run.finish(State.FAILURE).record().attempt == 1


def test_unregistered_task_whose_name_is_no_text_is_recorded(records: list[RunRecord]) -> None:
    foreign = message(headers={"id": "id-1", "task": 7})
    celery_signals.task_unknown.send(sender=None, id="id-1", name=7, message=foreign, exc=None)

    assert [(one.name, one.celery_id, one.state) for one in records] == [
        ("7", "id-1", State.FAILURE),
    ]


def test_worker_in_a_process_of_tests_says_that_it_records_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signals, "writer", Writer())
    signals.start_worker(sender=SimpleNamespace(app=app, on_decode_error=None))

    assert "This worker records nothing" in caplog.text


@pytest.mark.parametrize(("ago", "names_the_timeout"), [(90, True), (30, False)])
def test_reasons_of_a_redelivery_are_those_that_its_time_allows(
    monkeypatch: pytest.MonkeyPatch, ago: int, names_the_timeout: bool
) -> None:
    """Redis delivers the message of a lost worker again after the visibility timeout, too."""
    monkeypatch.setitem(app.conf.broker_transport_options, "visibility_timeout", 60)
    run = received.attempt(default_info("shop.pay"), {SENT_HEADER: time.time() - ago}, (), {})
    reason = received.redelivery(run, app)

    assert "its worker was lost" in reason
    assert "put it back into the queue" in reason
    assert ("visibility timeout of 60 s" in reason) is names_the_timeout
