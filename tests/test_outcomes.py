"""Every end of a run, in every pool: the cells of docs/celery-signals.md."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import chain, group

from config.celery import app
from systemtasks.models import TaskRun
from tests.tasks import succeed
from tests.waiting import eventually
from tests.workers import POOLS, Worker

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


@pytest.fixture(scope="module", params=POOLS)
def worker(
    request: pytest.FixtureRequest, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp(request.param) / "worker.log"
    with Worker(log, *POOLS[request.param]) as running:
        yield running


def ends(celery_id: str) -> list[End]:
    """How its attempts ended, in order; one that has not ended is left out."""
    ended = TaskRun.objects.filter(celery_id=celery_id, finish_timestamp__isnull=False)
    return [End(run.state, run.status, run.exception) for run in ended.order_by("attempt")]


def fit(found: list[End], expected: list[End]) -> bool:
    return len(found) == len(expected) and all(
        one[:2] == other[:2] and one.exception.startswith(other.exception)
        for one, other in zip(found, expected, strict=True)
    )


def ended(celery_id: str, *expected: End) -> bool:
    """Whether its attempts come to these ends."""
    return eventually(lambda: fit(ends(celery_id), list(expected)))


SUCCESS = End("success", "successful")


def test_every_outcome_is_recorded(worker: Worker) -> None:
    sent = {name: app.send_task(name, args=args).id for name, (args, _) in ENDS.items()}

    for name, celery_id in sent.items():
        assert ended(celery_id, *ENDS[name][1]), (name, ends(celery_id))


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
    chained = TaskRun.objects.filter(root_id=run.root_id)
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


def test_task_that_is_put_back_runs_again_as_the_same_attempt(
    worker: Worker, tmp_path: Path
) -> None:
    celery_id = app.send_task("tests.requeue", args=[str(tmp_path / "marker")]).id

    assert ended(celery_id, SUCCESS), ends(celery_id)


def test_task_that_another_replaces_has_that_ones_end(worker: Worker) -> None:
    celery_id = app.send_task("tests.replace").id
    assert ended(celery_id, SUCCESS), ends(celery_id)

    assert TaskRun.objects.get(celery_id=celery_id).system_task.name == "tests.succeed"
