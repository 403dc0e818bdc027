"""The rule by which a record replaces another is the same for Python and for Postgres."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemtasks.models import SystemTask, TaskRun
from systemtasks.runs.records import RunRecord
from systemtasks.states import ORPHANED, State
from systemtasks.storage import rows, sql
from systemtasks.storage.precedence import (
    facts_of_run,
    facts_of_task,
    run_replaces,
    task_replaces,
)
from tests.systemtasks.entries import NOON, record
from tests.systemtasks.storage.test_rows import LEASE, let_pass, write_anew

pytestmark = pytest.mark.django_db

database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
seconds = st.integers(0, 4)


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    """Draw a record of one attempt at any stage. Its start and end are among a few moments."""
    start = NOON + timedelta(seconds=draw(seconds))
    stage = draw(st.sampled_from(["queued", "running", "provisional", "final", "main process"]))
    values: dict[str, Any] = {"lease": None if stage in ("queued", "final") else LEASE}
    if stage in ("queued", "running"):
        values |= {"state": State(stage), "finish_timestamp": None, "duration": None}
    else:
        values["finish_timestamp"] = start + timedelta(seconds=draw(seconds))
    return record(
        start=None if stage == "queued" else start,
        provisional=stage == "provisional",
        from_main_process=stage == "main process",
        **values,
    )


@database
@given(records(), records())
def test_postgres_and_python_agree_on_which_record_of_an_attempt_stands(
    old: RunRecord, new: RunRecord
) -> None:
    write_anew([old])
    written = rows._execute_with(sql.UPSERT_TASK_RUNS, [new])

    assert bool(written) == run_replaces(facts_of_run(new), facts_of_run(old))


@database
@given(records())
def test_orphaned_run_is_replaced_like_one_that_is_running(new: RunRecord) -> None:
    running = record(state=State.RUNNING, finish_timestamp=None, duration=None, lease=LEASE)
    write_anew([running])
    let_pass(61)
    assert rows.end_orphaned_runs(60) == 1
    assert TaskRun.objects.get().state == ORPHANED
    written = rows._execute_with(sql.UPSERT_TASK_RUNS, [new])

    assert bool(written) == run_replaces(facts_of_run(new), facts_of_run(running))


@database
@given(seconds, seconds)
def test_postgres_and_python_agree_on_the_run_that_a_task_shows(
    old_start: int, new_start: int
) -> None:
    old, new = (
        record(celery_id, start=NOON + timedelta(seconds=start), save_run=False)
        for celery_id, start in (("old", old_start), ("new", new_start))
    )
    write_anew([old])
    rows.write([new])
    shown = SystemTask.objects.get().start_timestamp

    stands = new if task_replaces(facts_of_task(new), facts_of_task(old)) else old
    assert shown == stands.start_timestamp
