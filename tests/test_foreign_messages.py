"""A worker runs messages of foreign producers, and they are recorded correctly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Producer

from config.celery import app
from systemtasks import rerun
from systemtasks.capture.celery.options import UNNAMED
from systemtasks.models import SystemTask, TaskRun
from tests.waiting import eventually
from tests.workers import Worker, outcome

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ODD_ARGUMENTS = [
    ("text", {}),
    ("", {}),
    ({"number": 1}, {}),
    ({}, {}),
    (7, {}),
    (None, {}),
    ([1], []),
    ([1], [["number", 1]]),
    ([1], "text"),
    ([1], None),
    ("ab", ["c"]),
]


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "worker.log", "--pool", "prefork", "--concurrency", "2") as running:
        yield running


def publish(headers: dict[str, Any], body: Any, **options: Any) -> None:
    with app.connection_for_write() as connection:
        where: dict[str, Any] = {"exchange": "systemtasks", "routing_key": "systemtasks"}
        Producer(connection).publish(body, headers=headers, **where, **options)


def publish_arguments(protocol: int, celery_id: str, args: Any, kwargs: Any) -> None:
    fields = {"task": "tests.succeed", "id": celery_id}
    if protocol == 1:
        publish({}, {**fields, "args": args, "kwargs": kwargs})
    else:
        publish({**fields, "lang": "py"}, [args, kwargs, {}])


@pytest.mark.parametrize("protocol", [1, 2])
def test_arguments_that_are_no_list_or_no_object_are_not_on_record_as_if_they_were(
    worker: Worker, protocol: int
) -> None:
    for number, (args, kwargs) in enumerate(ODD_ARGUMENTS):
        publish_arguments(protocol, f"odd-{number}", args, kwargs)
    publish_arguments(protocol, "even", [1], {"label": "x"})
    even = outcome(worker, "even")
    assert (even.args, even.kwargs, even.arguments_intact) == ([1], {"label": "x"}, True)

    known = TaskRun.objects.filter(celery_id__startswith="odd-", finish_timestamp__isnull=False)
    undecodable = TaskRun.objects.filter(system_task__name=UNNAMED)
    assert eventually(lambda: known.count() + undecodable.count() >= len(ODD_ARGUMENTS)), (
        worker.log.read_text()
    )
    for run in TaskRun.objects.exclude(celery_id="even"):
        assert run.args is None or isinstance(run.args, list)
        assert run.kwargs is None or isinstance(run.kwargs, dict)
        assert not run.arguments_intact, (run.celery_id, run.args, run.kwargs)
    TaskRun.objects.filter(celery_id="even").delete()
    with pytest.raises(rerun.NotRerunnableError):
        rerun.rerun(SystemTask.objects.get(name="tests.succeed"))


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_task_without_a_name_is_recorded_under_a_name_of_its_own(worker: Worker, name: str) -> None:
    publish({"task": name, "id": "unnamed-2", "lang": "py"}, [[], {}, {}])
    publish({}, {"task": name, "id": "unnamed-1", "args": [], "kwargs": {}})
    runs = [outcome(worker, f"unnamed-{protocol}") for protocol in (1, 2)]

    assert {run.system_task.name for run in runs} == {UNNAMED}
    assert {run.state for run in runs} == {"failure"}
