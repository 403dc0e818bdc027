"""All code that depends on outcomes uses one table. A new outcome needs a line and a migration."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import celery.states
import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from systemtasks.capture.celery import signals
from systemtasks.models import TaskRun
from systemtasks.runs import recorder
from systemtasks.runs.records import RunRecord
from systemtasks.states import STATE_BY_CELERY_NAME, State, Status
from systemtasks.storage.pending import Pending
from tests import factories
from tests.systemtasks.entries import entry
from tests.systemtasks.runs.test_recorder import begin

ROOT = Path(__file__).resolve().parents[2]
LAST_LINE = 'IGNORED = Outcome("ignored", "IGNORED", Status.UNKNOWN)'


def places_after(*texts: str) -> Any:
    """Return the values derived from the outcomes, after replacing these texts in their table."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.systemtasks.changed_states", *texts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(printed.stdout)


@pytest.mark.parametrize("finished", [True, False])
def test_outcome_that_is_added_is_known_everywhere_and_asks_for_a_migration(finished: bool) -> None:
    line = f'PAUSED = Outcome("paused", "PAUSED", Status.WARNING, finished={finished})'
    places = places_after(LAST_LINE, f"{LAST_LINE}; {line}")

    for place in ("model", "filter", "serializer", "admin"):
        assert places[place] == {**dict(State.choices), "paused": "Paused"}, place
    assert "'paused'" in places["known"]
    assert ("PAUSED" in places["finished"]) is not finished
    added = [text for text in places["migrations"] if text.startswith("<AddConstraint")]
    assert any("'paused'" in text for text in added)


def test_sql_takes_its_words_from_the_table() -> None:
    renamed = {"running": "active", "failure": "broken", "error": "bad", "unknown": "none"}
    renamed |= {"queued": "waiting", "lost": "gone", "warning": "odd"}
    texts = [f'"{word}"' for pair in renamed.items() for word in pair]
    statements = places_after(*texts)["sql"]

    assert len(statements) >= 10
    for name, text in statements.items():
        literals = set(re.findall(r"'(\w+)'", re.sub(r"'log_level', '\w+'", "", text)))
        assert not literals & {*State.values, *Status.values}, name
    assert {"active", "broken", "bad"} <= set(
        re.findall(r"'(\w+)'", statements["END_ORPHANED_RUNS"])
    )


@pytest.mark.django_db
@pytest.mark.parametrize("state", State)
def test_database_takes_each_state_and_none_that_has_ended_without_its_end(state: State) -> None:
    task = factories.system_task()
    run = factories.task_run(task, state=state, status=state.outcome.status)
    assert TaskRun.objects.get(state=state) == run
    with transaction.atomic():
        try:
            TaskRun.objects.update(finish_timestamp=None)
        except IntegrityError:
            refused = True
        else:
            refused = False

    assert refused == state.outcome.finished


@pytest.mark.parametrize("state", State)
def test_status_of_a_run_is_that_of_its_state(state: State) -> None:
    run = begin()
    entry = run.finish(state) if state.outcome.finished else run.in_progress()
    recorder.current.set(None)

    assert entry.record().status == state.outcome.status


@pytest.mark.parametrize("state", STATE_BY_CELERY_NAME.values())
def test_end_that_celery_names_is_recorded_as_that(records: list[RunRecord], state: State) -> None:
    name = state.outcome.celery_name
    assert name == getattr(celery.states, name or "")
    run = begin()
    signals.finish(task_id=run.celery_id, state=name)

    assert [(record.state, record.status) for record in records] == [(state, state.outcome.status)]


def test_every_end_of_celery_has_its_state() -> None:
    assert STATE_BY_CELERY_NAME.keys() >= celery.states.READY_STATES


@pytest.mark.parametrize("state", State)
def test_runs_that_may_be_dropped_first_are(
    settings: Settings, tmp_path: Path, state: State
) -> None:
    settings.SYSTEMTASKS = {"JOURNAL_DIR": str(tmp_path), "PENDING_LIMIT": 2, "BATCH_LIMIT": 3}
    pending = Pending()
    failure = entry("failure", state=State.FAILURE)
    for one in (failure, entry("of this state", state=state), entry("last", state=State.FAILURE)):
        pending.add(one)
    kept = []
    while batch := pending.take():
        kept += [one.record().celery_id for one in batch.entries]
        pending.done(batch)
    pending.tidy()

    assert kept == [
        "failure" if state.outcome.dropped_first else "of this state",
        "last",
    ]
