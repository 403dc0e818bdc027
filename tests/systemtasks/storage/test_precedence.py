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
from systemtasks.storage.precedence import Stage, run_replaces, stage_of
from tests.systemtasks.entries import NOON, record
from tests.systemtasks.storage.test_rows import LEASE, let_pass, write_anew

pytestmark = pytest.mark.django_db

database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
seconds = st.integers(0, 4)


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    """Draw a record of one execution at any stage. Its start and end are among a few moments."""
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


def write(record: RunRecord) -> bool:
    """Write the record as the process would that has made it. Return True if it was written."""
    by_main_process = record.from_main_process
    statement = sql.UPSERT_RUNS_BY_MAIN_PROCESS if by_main_process else sql.UPSERT_RUNS
    return bool(rows._execute_with(statement, [record]))


@database
@given(records(), records())
def test_postgres_and_python_agree_on_which_record_of_an_execution_stands(
    old: RunRecord, new: RunRecord
) -> None:
    write_anew([old])
    expected = run_replaces(stage_of(new), stage_of(old))
    if old.from_main_process:  # its row is that of a final end
        expected = stage_of(new) == Stage.FINAL

    assert write(new) == expected


@database
@given(records())
def test_orphaned_run_is_replaced_like_one_that_is_running(new: RunRecord) -> None:
    running = record(state=State.RUNNING, finish_timestamp=None, duration=None, lease=LEASE)
    write_anew([running])
    let_pass(61)
    assert rows.end_orphaned_runs(60) == 1
    assert TaskRun.objects.get().state == ORPHANED

    assert write(new) == run_replaces(stage_of(new), stage_of(running))


@database
@given(seconds, seconds)
def test_postgres_and_python_agree_on_the_run_that_a_task_shows(
    old_start: int, new_start: int
) -> None:
    old, new = (
        record(celery_id, start=NOON + timedelta(seconds=start), save_run=False)
        for celery_id, start in (("old", old_start), ("new", new_start))
    )
    shown = []
    for batches in ([old], [new]), ([old, new],):
        write_anew([])
        for batch in batches:
            rows.write(batch)
        shown.append(str(SystemTask.objects.get().execution))

    stands = {old.execution, new.execution}
    if old_start != new_start:
        stands = {new.execution if new_start > old_start else old.execution}
    assert set(shown) <= stands
