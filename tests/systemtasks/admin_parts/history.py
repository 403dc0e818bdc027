"""A history for the tests of the home page: what fails, runs, waits, is late and was slower."""

from datetime import UTC, datetime, timedelta
from typing import Any

from systemtasks.ids import new_uuid, system_task_uuid
from systemtasks.models import ScheduleEntry, SystemTask, TaskRun
from systemtasks.states import State, Status
from systemtasks.storage.dropped import NAME as WRITER
from tests import factories

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FAILED: dict[str, Any] = {"state": State.FAILURE, "status": Status.ERROR}


def ended(task: SystemTask, start: datetime, duration: float = 1.0, **fields: Any) -> TaskRun:
    """Return a saved run that started then, on celery@a."""
    finish = start + timedelta(seconds=duration)
    times = {"start_timestamp": start, "finish_timestamp": finish, "duration": duration}
    return factories.task_run(task, **{"worker": "celery@a", **times, **fields})


def running(task: SystemTask, start: datetime, seen: datetime, **fields: Any) -> TaskRun:
    """Return a saved run that is running, whose worker was seen then."""
    return factories.task_run(
        task,
        state=State.RUNNING,
        status=Status.UNKNOWN,
        start_timestamp=start,
        finish_timestamp=None,
        seen_timestamp=seen,
        lease=new_uuid(),
        **fields,
    )


def queued(task: SystemTask, sent: datetime, **fields: Any) -> TaskRun:
    """Return a saved run that waits."""
    unknown = {"start_timestamp": None, "finish_timestamp": None}
    return factories.task_run(
        task,
        state=State.QUEUED,
        status=Status.UNKNOWN,
        sent_timestamp=sent,
        sort_timestamp=None,
        **{**unknown, **fields},
    )


def make(more: int = 0, now: datetime | None = None) -> datetime:
    """Save the history, with that many more tasks of each kind, and return the time it is made for.

    "shop.charge" fails 3 of 4 times since half an hour ago.
    """
    now = now or datetime.now(UTC)
    lately: dict[str, Any] = {"start_timestamp": now - MINUTE, "finish_timestamp": now - MINUTE}
    for number in range(more + 1):
        end = f"_{number}" if number else ""
        charge = factories.system_task(f"shop.charge{end}", **lately)
        ended(charge, now - 40 * MINUTE)
        for minutes in (30, 20, 10):
            ended(charge, now - minutes * MINUTE, exception="E: no", **FAILED)

        report = factories.system_task(f"shop.report{end}", **lately)
        for hours in range(30, 150, 10):
            ended(report, now - hours * HOUR, 2.0)
        for hours in range(2, 14, 2):
            ended(report, now - hours * HOUR, 9.0)

        stock = factories.system_task(f"shop.stock{end}", **lately)
        running(stock, now - 2 * HOUR, now - 20 * MINUTE, worker=f"celery@dead{end}", queue="slow")
        running(stock, now - MINUTE, now, worker="celery@a")
        queued(stock, now - 3 * HOUR, queue=f"stuck{end}")
        queued(stock, now - MINUTE, queue="celery")
        times = {"start_timestamp": now - 5 * HOUR, "finish_timestamp": now - 4 * HOUR}
        factories.task_run(stock, state=State.LOST, status=Status.WARNING, **times)
        ScheduleEntry.objects.create(
            app="shop", entry=f"late{end}", task=f"shop.nightly{end}", next_due=now - HOUR
        )
        ScheduleEntry.objects.create(
            app="shop", entry=f"soon{end}", task=f"shop.report{end}", next_due=now + 5 * MINUTE
        )
    writer = factories.system_task(WRITER, uuid=system_task_uuid(WRITER), **lately)
    text = "17 task runs are not recorded: too many waited for the database"
    ended(writer, now - 5 * MINUTE, exception=text, **FAILED)
    return now
