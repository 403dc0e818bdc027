"""What a process tells of an attempt is read as it was meant, whatever its message holds."""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from systemtasks.runs import recorder
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.entries import BEAT_HEADER, CONTEXT_HEADER, SENT_HEADER, Entry
from systemtasks.runs.records import NAME_LIMIT, RunRecord
from systemtasks.states import State
from tests.systemtasks.entries import entry as entry_of_record
from tests.systemtasks.entries import record
from tests.systemtasks.runs.test_recorder import INFO, begin
from tests.systemtasks.runs.test_values import anything

LEASE = str(UUID(int=1))
FIELDS = (
    *("id", "retries", "eta", "hostname", "origin", "parent_id", "root_id", "delivery_info"),
    *("headers", SENT_HEADER, CONTEXT_HEADER, BEAT_HEADER),
)


def test_record_is_read_as_it_was_told() -> None:
    told: dict[str, Any] = {"uid": "ldap", "attempt": 3, "lease": LEASE}
    told |= {"provisional": True, "from_main_process": True}
    logged = '[{"timestamp":"2026-11-24T12:00:00Z","log_level":"info","logger":"shop",'
    logged += '"event":"Grüße","attributes":{"number":7}}]'
    for written in (
        record(messages=logged, **told),
        record(messages="[]", sent_timestamp=None, wait=None, expires=None, args=None, kwargs=None),
    ):
        assert entry_of_record_of(written) == written


def entry_of_record_of(written: RunRecord) -> RunRecord:
    return entry_of_record(**{"start": written.start_timestamp, **asdict(written)}).record()


def test_end_is_confirmed_until_it_is_read() -> None:
    early, late = (entry_of_record(lease=LEASE, provisional=True) for _ in range(2))
    assert late.record().lease == LEASE
    assert late.record().provisional

    assert early.make_final()
    assert early.record().lease is None
    assert not early.record().provisional
    assert not late.make_final()


def test_success_stands_as_it_was_noted_unless_there_is_more_to_say() -> None:
    run = begin()
    run.succeed()
    assert run.end_as_succeeded()

    run = begin()
    run.succeed()
    run.log(20, "shop", "Afterwards", {})
    assert not run.end_as_succeeded()
    recorder.current.set(None)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(anything, min_size=len(FIELDS), max_size=len(FIELDS)),
    st.sets(st.sampled_from(FIELDS)),
)
def test_whatever_a_message_holds_is_read(values: list[Any], given_names: set[str]) -> None:
    request = dict(zip(FIELDS, values, strict=True))
    request = {name: value for name, value in request.items() if name in given_names}
    for told in (recorder.queued(INFO, request, Arguments("[1]", "{}", True)), begin_of(request)):
        assert len(told.line) < 60_000
        read = told.record()
        texts = (read.celery_id, read.queue, read.worker, read.sender, read.parent_id, read.root_id)
        assert all(len(text) <= NAME_LIMIT and "\0" not in text for text in texts)
        assert read.attempt >= 1
        assert read.name == INFO.name


def begin_of(request: dict[str, Any]) -> Entry:
    return recorder.Run(INFO, request, Arguments(None, None), LEASE).finish(State.FAILURE)


def test_huge_values_of_a_foreign_message_are_cut() -> None:
    huge = {"id": "id-1", "root_id": "x" * 5_000_000, CONTEXT_HEADER: '{"a": "' + "x" * 5_000_000}
    told = recorder.queued(INFO, huge, Arguments("[1]", "{}", True))

    assert len(told.line) < 20_000
    assert told.record().root_id == "x" * NAME_LIMIT
    assert told.record().context == "{}"


def test_what_a_task_makes_of_its_request_changes_no_record() -> None:
    request: dict[str, Any] = {"id": "cleared", "retries": 1}
    run = recorder.start(recorder.Run(INFO, request, Arguments(None, None), LEASE))
    request.clear()

    assert recorder.end("cleared") is run
    assert run.finish(State.SUCCESS).record().attempt == 2


def test_row_may_expire_at_once() -> None:
    run = recorder.Run(
        replace(INFO, expires_after=timedelta(0)), {"id": "id-1"}, Arguments(None, None), LEASE
    )
    read = run.finish(State.SUCCESS).record()

    assert read.expires == read.finish_timestamp
