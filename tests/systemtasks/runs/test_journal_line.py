"""A line of the journal is decoded as it was encoded, with any values in Celery's message."""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from systemtasks.runs import recorder
from systemtasks.runs.arguments import Arguments
from systemtasks.runs.journal_line import (
    BEAT_HEADER,
    CONTEXT_HEADER,
    EXECUTION,
    PARENT_HEADER,
    REPLACES_HEADER,
    RUN_HEADER,
    SENT_HEADER,
    VERSION,
    Entry,
    decode,
    id_text,
)
from systemtasks.runs.records import NAME_LIMIT, RunRecord
from systemtasks.runs.sent_options import CONTENT_TYPE, QUEUE
from systemtasks.states import State
from tests.systemtasks.entries import NOON, entry, entry_of, record
from tests.systemtasks.runs.test_recorder import INFO, begin
from tests.systemtasks.runs.test_values import anything

LEASE = str(UUID(int=1))
FIELDS = (
    "id",
    "retries",
    "eta",
    "hostname",
    "origin",
    "parent_id",
    "root_id",
    "delivery_info",
    "headers",
    SENT_HEADER,
    CONTEXT_HEADER,
    BEAT_HEADER,
    RUN_HEADER,
    PARENT_HEADER,
    REPLACES_HEADER,
    EXECUTION,
    "expires",
    "timelimit",
    "tenant",
    CONTENT_TYPE,
    QUEUE,
)


LOGGED = (
    '[{"timestamp":"2026-11-24T12:00:00Z","log_level":"info","logger":"shop",'
    '"event":"Grüße","attributes":{"number":7}}]'
)
FULL = record(
    uid="ldap",
    first_uid="none",
    id="019ab5d1-f000-7000-8000-000000000001",
    execution="019ab5d1-f400-7000-8000-000000000002",
    attempt=3,
    redelivered=True,
    replaces=str(UUID(int=3)),
    replaced_by=str(UUID(int=4)),
    parent_run=str(UUID(int=5)),
    sender="gen1@host",
    parent_id="parent",
    root_id="root",
    context='{"user":7}',
    sent_options=(
        '{"types":[[["args",1],"decimal"]],"headers":{"tenant":"acme","trace":"b\'1\'"},'
        '"header_types":[[["trace"],"bytes"]],"exchange":"feeds","routing_key":"feed.tsv",'
        '"priority":3,"time_limit":60,"expires":90.0}'
    ),
    eta_timestamp=NOON - timedelta(seconds=1),
    wait=1.0,
    exception="ShopError: closed",
    messages=LOGGED,
    lease=LEASE,
    provisional=True,
    from_main_process=True,
    save_run=False,
)
EMPTY = record(messages="[]", sent_timestamp=None, wait=None, expires=None, args=None, kwargs=None)
LINE_OF_VERSION_7 = """{
    "task": {
        "name": "shop.charge",
        "description": "Charge.",
        "expires_after": 2592000.0,
        "save_on_success": false
    },
    "request": {
        "celery_id": "id-1",
        "retries": 2,
        "eta": "2026-11-24T11:59:59+00:00",
        "queue": "celery",
        "worker": "celery@host",
        "sender": "gen1@host",
        "parent_id": "parent",
        "root_id": "root",
        "sent": 1795521598.0,
        "context": "{\\"user\\":7}",
        "run": "019ab5d1-f000-7000-8000-000000000001",
        "redelivered": 1,
        "parent_run": "00000000-0000-0000-0000-000000000005",
        "replaces": "00000000-0000-0000-0000-000000000003",
        "options": {
            "headers": "{\\"tenant\\":\\"acme\\",\\"trace\\":\\"b'1'\\"}",
            "header_types": "[[[\\"trace\\"],\\"bytes\\"]]",
            "exchange": "feeds",
            "routing_key": "feed.tsv",
            "priority": 3,
            "time_limit": 60,
            "expires": "2026-11-24T12:01:28+00:00"
        }
    },
    "state": "success",
    "status": "successful",
    "uid": "ldap",
    "first_uid": "none",
    "args": "[1, \\"zwei\\"]",
    "kwargs": "{}",
    "arguments_intact": true,
    "argument_types": "[[[\\"args\\",1],\\"decimal\\"]]",
    "start": 1795521600.0,
    "duration": 1.5,
    "exception": "ShopError: closed",
    "messages": [[1795521600.0, 20, "shop", "Grüße", {"number": 7}]],
    "execution": "019ab5d1-f400-7000-8000-000000000002",
    "replaced_by": "00000000-0000-0000-0000-000000000004",
    "lease": "00000000-0000-0000-0000-000000000001",
    "provisional": true,
    "from_main_process": true
}"""


@pytest.mark.parametrize("written", [FULL, EMPTY])
def test_record_is_decoded_as_it_was_encoded(written: RunRecord) -> None:
    assert entry_of(written).record() == written


def test_every_field_of_a_record_is_encoded() -> None:
    values = asdict(FULL)
    # How long ago it was is only known when it is written.
    set_later = {"age", "is_beginning", "is_gone"}

    same = {name for name, value in asdict(RunRecord("")).items() if values[name] == value}
    assert same == set_later


def test_line_on_disk_is_decoded_by_a_process_of_the_same_version() -> None:
    """If the fields change, so must VERSION, and with it this line."""
    assert VERSION == 7
    assert decode(LINE_OF_VERSION_7.encode()) == FULL
    assert orjson.loads(entry_of(FULL).line) == orjson.loads(LINE_OF_VERSION_7)


def test_provisional_end_can_be_made_final_until_it_is_read() -> None:
    early, late = (entry(lease=LEASE, provisional=True) for _ in range(2))
    assert late.record().lease == LEASE
    assert late.record().provisional

    assert early.make_final()
    assert early.record().lease is None
    assert not early.record().provisional
    assert not late.make_final()


def test_provisional_success_becomes_final_unless_the_run_has_changed_since() -> None:
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
    assert told.record().root_id.startswith("xxx")
    assert told.record().context == "{}"


def test_long_ids_remain_apart_and_are_found_by_what_they_were() -> None:
    first, second = (
        recorder.queued(INFO, {"id": "x" * 300 + end}, Arguments(None, None)).record().celery_id
        for end in "ab"
    )

    assert first != second
    assert len(first) == len(second) == NAME_LIMIT
    assert first == id_text("x" * 300 + "a")


@pytest.mark.parametrize("junk", ["", "no uuid", "x" * 36, 7, None, ["a"], "0" * 32])
def test_run_has_the_id_of_its_execution_where_the_message_has_none(junk: object) -> None:
    run = recorder.Run(INFO, {"id": "id-1", RUN_HEADER: junk}, Arguments(None, None), LEASE)
    record = run.finish(State.SUCCESS).record()

    assert record.id == record.execution == run.execution


@pytest.mark.parametrize(
    "odd", ["019AB5D1-F000-7000-8000-000000000001", f"{{-{UUID(int=7).hex}-}}"]
)
def test_id_of_another_program_is_spelled_as_postgres_spells_it(odd: str) -> None:
    run = recorder.Run(INFO, {"id": "id-1", RUN_HEADER: odd}, Arguments(None, None), LEASE)

    assert run.finish(State.SUCCESS).record().id == str(UUID(odd))


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


def test_a_run_that_descends_from_none_has_no_root() -> None:
    own = recorder.queued(INFO, {"id": "id-1", "root_id": "id-1"}, Arguments("[]", "{}", True))
    other = recorder.queued(INFO, {"id": "id-1", "root_id": "id-2"}, Arguments("[]", "{}", True))
    assert (own.record().root_id, other.record().root_id) == ("", "id-2")
