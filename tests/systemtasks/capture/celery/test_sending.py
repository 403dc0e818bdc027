"""A task is a run from the moment it is sent, and `.delay()` never notices."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.app.task import Context
from celery.app.trace import trace_task
from celery.worker.strategy import proto1_to_proto2  # type: ignore[attr-defined]
from pytest_django import Settings

from systemtasks.capture.celery import received, signals
from systemtasks.capture.celery.options import AnyTask, default_info
from systemtasks.runs import recorder
from systemtasks.runs.journal_line import CONTEXT_HEADER, EXECUTION, PARENT_HEADER, RUN_HEADER
from systemtasks.runs.records import RunRecord
from systemtasks.runs.values import moment
from systemtasks.states import State, Status
from tests import tasks
from tests.systemtasks.conftest import MakeTask

DUE = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(params=[1, 2])
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """Yield an app with its own broker in this process."""
    made = Celery("sender", broker="memory://", set_as_current=False)
    made.conf.task_protocol = request.param
    with made.connection_for_write() as connection:
        connection.SimpleQueue("celery").clear()
    yield made
    made.close()


def sent_message(app: Celery) -> Any:
    with app.connection_for_read() as connection:
        return connection.SimpleQueue("celery").get(block=False)


def tenant() -> dict[str, object]:
    return {"tenant": 7, "api_key": "hunter2"}


def raising() -> dict[str, object]:
    raise RuntimeError("no request")


def nothing() -> None:
    return None


def no_dictionary() -> list[int]:
    return [7]


def too_much() -> dict[str, str]:
    return {"page": "x" * 5000}


def unprintable() -> dict[str, object]:
    return {"text": "\0\ud800"}


def test_sent_task_is_queued(app: Celery, records: list[RunRecord]) -> None:
    before = datetime.now(UTC)
    app.send_task(
        *("tests.succeed", (3,), {"label": "x"}),
        task_id="id-1",
        eta=DUE,
        retries=2,
        queue="celery",
    )
    (record,) = records

    assert (record.celery_id, record.attempt) == ("id-1", 3)
    assert (record.state, record.status) == (State.QUEUED, Status.UNKNOWN)
    assert (record.name, record.description) == ("tests.succeed", "Say hello.")
    assert (record.args, record.kwargs, record.arguments_intact) == ("[3]", '{"label":"x"}', True)
    assert record.queue == "celery"
    assert record.eta_timestamp == DUE
    assert record.expires == DUE + timedelta(days=30)
    assert record.sent_timestamp
    assert before <= record.sent_timestamp <= datetime.now(UTC)
    assert (record.start_timestamp, record.finish_timestamp, record.worker) == (None, None, "")


def test_sender_and_family_are_known(records: list[RunRecord]) -> None:
    app = Celery("sender", broker="memory://", set_as_current=False)
    message = app.amqp.as_task_v2(
        "id-1", "tests.succeed", parent_id="father", root_id="adam", origin="web@host"
    )
    signals.note_sent(sender="tests.succeed", headers=message.headers, body=message.body)

    (record,) = records
    assert (record.sender, record.parent_id, record.root_id) == ("web@host", "father", "adam")


@pytest.mark.parametrize("stamped", [True, False])
def test_beat_is_known_as_the_sender(records: list[RunRecord], stamped: bool) -> None:
    app = Celery("sender", broker="memory://", set_as_current=False)
    message = app.amqp.as_task_v2("id-1", "tests.succeed", origin="gen42@host")
    headers = {**message.headers, "celery_beat_task": True}
    if stamped:
        signals.stamp(headers=headers)
    signals.note_sent(sender="tests.succeed", headers=headers, body=message.body)

    (record,) = records
    assert record.sender == "celerybeat@host"


@pytest.mark.parametrize("app", [2], indirect=True)  # protocol 1 knows no parents
@pytest.mark.parametrize(("parent", "kept"), [("father", "father"), (None, "")])
def test_retry_has_the_parent_of_the_first_attempt(
    app: Celery, records: list[RunRecord], parent: str | None, kept: str
) -> None:
    @app.task(name="tests.retrying", bind=True, shared=False)
    def retrying(self: Any) -> None:
        raise self.retry()

    first = {"id": "id-1", "root_id": "adam", "parent_id": parent, "retries": 0}
    trace_task(retrying, "id-1", (), {}, request=first, app=app)
    context = Context(sent_message(app).headers)
    second = (
        received.attempt(default_info("tests.retrying"), vars(context), (), {})
        .finish(State.SUCCESS)
        .record()
    )
    queued, first_attempt = records

    assert (queued.attempt, queued.parent_id, queued.root_id) == (2, kept, "adam")
    assert (second.attempt, second.parent_id, second.root_id) == (2, kept, "adam")
    assert first_attempt.parent_id == kept


def test_each_message_has_an_id_and_the_queued_run_has_it(
    app: Celery, records: list[RunRecord]
) -> None:
    for _ in range(2):
        app.send_task("tests.succeed", task_id="same")
    ids = [stamped(sent_message(app))[RUN_HEADER] for _ in range(2)]

    assert [str(record.id) for record in records] == ids
    assert [record.execution for record in records] == [None, None]
    assert len(set(ids)) == 2


def stamped(message: Any) -> dict[str, Any]:
    """The headers of a message, which a worker finds in its request."""
    headers: dict[str, Any] = message.headers
    return headers


def run_in_worker(task: AnyTask, app: Celery, **headers: Any) -> None:
    """Run a task as a worker does that has received it."""
    request = {"id": "id-1", "retries": 0, EXECUTION: str(UUID(int=9)), **headers}
    trace_task(task, "id-1", (), {}, request=request, app=app)


@pytest.mark.parametrize("parent", [None, str(UUID(int=5))])
def test_retry_has_an_id_of_its_own_and_the_same_parent(
    app: Celery, records: list[RunRecord], parent: str | None
) -> None:
    @app.task(name="tests.retrying", bind=True, shared=False)
    def retrying(self: Any) -> None:
        raise self.retry()

    own = {} if parent is None else {PARENT_HEADER: parent}
    run_in_worker(retrying, app, **{RUN_HEADER: str(UUID(int=7)), **own})
    queued, first = records
    headers = stamped(sent_message(app))

    assert (first.id, first.execution) == (str(UUID(int=7)), str(UUID(int=9)))
    assert queued.id not in (first.id, first.execution)
    assert headers[RUN_HEADER] == queued.id
    assert EXECUTION not in headers
    assert (first.parent_run, queued.parent_run) == (parent, parent)
    assert (queued.replaces, first.replaced_by) == (None, None)


def test_task_that_replaces_another_is_linked_with_it_and_has_its_parent(
    records: list[RunRecord],
) -> None:
    app = Celery("sender", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        connection.SimpleQueue("celery").clear()

    @app.task(name="tests.replacing", bind=True, shared=False)
    def replacing(self: Any) -> None:
        raise self.replace(app.signature("tests.succeed"))

    parent = str(UUID(int=5))
    run_in_worker(replacing, app, **{RUN_HEADER: str(UUID(int=7)), PARENT_HEADER: parent})
    new, old = records

    assert (new.celery_id, new.name) == (old.celery_id, "tests.succeed")
    assert (old.state, old.replaced_by) == (State.IGNORED, new.id)
    assert (new.state, new.replaces) == (State.QUEUED, old.id)
    assert new.parent_run == old.parent_run == parent


def test_no_run_descends_from_itself_after_a_task_is_replaced_by_a_chain(
    records: list[RunRecord],
) -> None:
    app = Celery("sender", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        connection.SimpleQueue("celery").clear()

    @app.task(name="tests.step", shared=False)
    def step() -> None:
        pass

    @app.task(name="tests.replacing", bind=True, shared=False)
    def replacing(self: Any) -> None:
        raise self.replace(step.si() | step.si())

    run_in_worker(replacing, app, **{RUN_HEADER: str(UUID(int=7))})
    for number in (1, 2):
        message = sent_message(app)
        request = {**message.headers, EXECUTION: str(UUID(int=20 + number))}
        args, kwargs, embed = message.payload
        trace_task(step, request["id"], args, kwargs, request={**request, **embed}, app=app)
    runs = {record.id: record for record in records if record.execution}
    last = next(run for run in runs.values() if run.execution == str(UUID(int=22)))

    assert last.celery_id == "id-1"  # and Celery says that its parent's parent has this id
    ancestors = [last.id]
    while (parent := runs[ancestors[-1]].parent_run) is not None:
        assert parent not in ancestors
        ancestors.append(parent)
    assert len(ancestors) == 3


@pytest.mark.parametrize("odd", ["many", [], None, 1.5, True])
def test_odd_numbers_in_a_message_keep_it_from_nobody(
    records: list[RunRecord], odd: object
) -> None:
    run = recorder.start(received.attempt(default_info("tests.odd"), {"id": "id-1"}, (), {}))
    run.nesting = odd
    headers = {"id": "id-1", "retries": odd, "replaced_task_nesting": odd}
    signals.stamp(headers=headers)
    recorder.end("id-1")

    assert UUID(str(headers[RUN_HEADER])).version == 7


def test_message_carries_when_it_was_sent_and_in_which_context(
    app: Celery, records: list[RunRecord], settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.tenant"}
    app.send_task("tests.succeed")
    headers = sent_message(app).headers

    assert records[0].context == '{"tenant":7,"api_key":"********"}'
    assert moment(headers["systemtasks_sent"]) == records[0].sent_timestamp
    assert headers["systemtasks_context"] == records[0].context


def test_worker_knows_what_the_sender_did(
    app: Celery, records: list[RunRecord], settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.tenant"}
    app.send_task("tests.succeed", (3,))
    message = sent_message(app)
    context = message.headers
    if app.conf.task_protocol == 1:
        _, context, *_ = proto1_to_proto2(message, message.payload)
    run = received.attempt(default_info("tests.succeed"), vars(Context(context)), (3,), {})
    record = run.finish(State.SUCCESS).record()

    assert (record.sent_timestamp, record.context) == (
        records[0].sent_timestamp,
        records[0].context,
    )


def test_context_that_cannot_be_printed_is_made_storable(
    app: Celery, records: list[RunRecord], settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.unprintable"}
    app.send_task("tests.succeed")

    assert json.loads(records[0].context) == {"text": "\N{REPLACEMENT CHARACTER}" * 2}


@pytest.mark.parametrize("said", ["raising", "no_dictionary", "too_much"])
def test_context_that_makes_no_sense_is_left_out_and_logged(
    app: Celery,
    records: list[RunRecord],
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    said: str,
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.{said}"}
    app.send_task("tests.succeed")

    assert records[0].context == "{}"
    assert records[0].sent_timestamp
    assert "Signal handler <function stamp" in caplog.text


def test_sender_may_have_no_context(
    app: Celery, records: list[RunRecord], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SYSTEMTASKS = {"SENDER_CONTEXT": f"{__name__}.nothing"}
    app.send_task("tests.succeed")

    assert records[0].context == "{}"
    assert CONTEXT_HEADER not in sent_message(app).headers
    assert caplog.text == ""


@pytest.mark.parametrize(
    "said", ["[1]", "7", "{", "\x00", '{"a": "\\u0000"}', f'{{"a": "{4096 * "a"}"}}', 7, None]
)
def test_context_of_a_foreign_sender_is_an_object_or_left_out(
    records: list[RunRecord], said: object
) -> None:
    headers = {"id": "id-1", CONTEXT_HEADER: said}
    signals.note_sent(sender="tests.succeed", headers=headers, body=((), {}, {}))

    assert records[0].context == "{}"


def test_unknown_task_is_queued_too(app: Celery, records: list[RunRecord]) -> None:
    app.send_task("elsewhere.task")

    assert (records[0].name, records[0].description) == ("elsewhere.task", "")


def test_task_that_wants_no_record_is_not_queued(
    app: Celery, records: list[RunRecord], make_task: MakeTask
) -> None:
    app.send_task(make_task(lambda: None, systemtasks_record=False).name)
    app.send_task(make_task(lambda: None, systemtasks_save_on_success=False).name)

    assert records == []


def test_sending_may_be_left_unrecorded(
    app: Celery, records: list[RunRecord], settings: Settings
) -> None:
    settings.SYSTEMTASKS = {"RECORD_SENDING": False}
    app.send_task("tests.succeed")

    assert records == []


def test_run_due_at_the_end_of_time_never_expires(app: Celery, records: list[RunRecord]) -> None:
    app.send_task("tests.succeed", eta=datetime.max.replace(tzinfo=UTC))

    assert records[0].expires is None


@pytest.mark.parametrize("breaks", ["runs.recorder.queued", "capture.celery.signals.writer.submit"])
def test_recording_that_fails_does_not_reach_the_sender(
    app: Celery,
    records: list[RunRecord],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(f"systemtasks.{breaks}", broken)
    app.send_task("tests.succeed", (3,), task_id="id-1")

    assert sent_message(app).headers
    assert "Signal handler <function note_sent" in caplog.text
    assert records == []


@pytest.mark.parametrize("body", [None, 7, "text", [], ((), {})])
def test_odd_bodies_are_queued_without_arguments_or_not_at_all(
    records: list[RunRecord], body: object
) -> None:
    signals.note_sent(sender="tests.succeed", headers={"id": "id-1"}, body=body)

    assert [record.celery_id for record in records] == ["id-1"]
    assert recorder.current.get() is None
    assert tasks.succeed.name == records[0].name
