"""List the questions: every filter and order of API and admin, with values that are there.

The names of the filters and orders come from the service itself. So a new one is asked, too, once
`EXAMPLES` has a value for it; until then it is printed as not asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import QuerySet

from benchmarks.scale.fill import MORE_TASKS_NAME, task_names
from events.filters import SystemTaskFilter, TaskRunFilter
from systemtasks.ids import system_task_uuid
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State, Status

API = "/api/v3/events"
RUNS = f"{API}/task_runs/"
TASKS = f"{API}/system_tasks/"
ADMIN = "/admin/systemtasks"

COMMON, RARE = task_names()[0], task_names()[9]
"""The most frequent task, and a rare one. The rare one has a uid."""

Query = dict[str, str]


@dataclass(frozen=True)
class Question:
    """One path, in one or more orders."""

    group: str
    name: str
    path: str
    query: Query
    orders: tuple[Query, ...] = ()
    """Further parameters, each of which asks for another order."""

    def urls(self) -> Iterator[str]:
        """Yield the URL in the list's own order, and then in each of the other orders."""
        for order in ({}, *self.orders):
            text = urlencode({**self.query, **order})
            yield f"{self.path}?{text}" if text else self.path


class Values:
    """Values of rows of one database, for the queries."""

    def __init__(self) -> None:
        """Look for them in the database that is in use."""
        ended = TaskRun.objects.finished().newest_first()
        self.run = self.first(ended.filter(system_task=system_task_uuid(*RARE)))
        self.failed = self.first(ended.filter(status=Status.ERROR).exclude(exception=""))
        self.child = self.first(ended.filter(parent_run__isnull=False))
        of_common = ended.filter(system_task=system_task_uuid(*COMMON))
        self.failed = self.first(of_common.filter(state=State.FAILURE))
        common = system_task_uuid(*COMMON)
        self.failed_rarely = self.first(
            ended.filter(state=State.FAILURE).exclude(system_task=common)
        )
        self.running = self.first(TaskRun.objects.filter(state=State.RUNNING))
        self.retry = self.first(ended.filter(attempt=2))
        self.now = datetime.now(UTC)

    def first(self, runs: "QuerySet[TaskRun]") -> Any:  # noqa: ANN401
        """Return the first of the runs. There are some."""
        return runs.order_by("-sort_timestamp")[:1].get()

    def ago(self, **span: float) -> str:
        return (self.now - timedelta(**span)).isoformat()


def run_filters(values: Values) -> Iterator[tuple[str, Query]]:
    """Yield a name and a query for each filter of the runs, alone and with others."""
    day = {"started_from": values.ago(days=30), "started_until": values.ago(days=29)}
    yield "all", {}
    yield "name, of an eighth of all", {"name": COMMON[0]}
    yield "name, rare", {"name": RARE[0]}
    yield "name, unknown", {"name": "no.such.task"}
    yield "uid", {"uid": RARE[1]}
    yield "system_task, of an eighth", {"system_task": str(system_task_uuid(*COMMON))}
    yield "system_task, rare", {"system_task": str(system_task_uuid(*RARE))}
    yield "celery_id", {"celery_id": values.run.celery_id}
    yield "parent_id", {"parent_id": values.child.parent_id}
    yield "root_id", {"root_id": values.child.root_id}
    for state in State.values:
        yield f"state={state}", {"state": state}
    for status in Status.values:
        yield f"status={status}", {"status": status}
    yield "queue, of five sevenths", {"queue": "default"}
    yield "queue, of a seventh", {"queue": "urgent"}
    yield "queue, unknown", {"queue": "no-such-queue"}
    yield "worker, of a 24th", {"worker": values.run.worker}
    yield "worker, unknown", {"worker": "no-such-worker"}
    yield "started_from an hour ago", {"started_from": values.ago(hours=1)}
    yield "started_from 7 days ago", {"started_from": values.ago(days=7)}
    yield "started_until 7 days ago", {"started_until": values.ago(days=7)}
    yield "one day", day
    yield "min_duration=0.01, nearly all", {"min_duration": "0.01"}
    yield "min_duration=60, few", {"min_duration": "60"}
    yield "min_duration=100000, none", {"min_duration": "100000"}
    yield "search, in all errors", {"search": "has no address"}
    yield "search, in one error a day", {"search": "order 77"}
    yield "search, in none", {"search": "no-such-word"}
    yield "name and state=failure", {"name": COMMON[0], "state": "failure"}
    yield "rare name and state=failure", {"name": RARE[0], "state": "failure"}
    yield "name and min_duration=60", {"name": COMMON[0], "min_duration": "60"}
    yield "name and one day", {"name": COMMON[0], **day}
    yield "state=failure and one day", {"state": "failure", **day}
    yield "queue and state=failure", {"queue": "urgent", "state": "failure"}
    yield "queue and one day", {"queue": "urgent", **day}
    yield "worker and state=failure", {"worker": values.run.worker, "state": "failure"}
    yield "worker and one day", {"worker": values.run.worker, **day}
    yield "status=warning and min_duration=60", {"status": "warning", "min_duration": "60"}


def task_filters() -> Iterator[tuple[str, Query]]:
    """Yield a name and a query for each filter of the tasks."""
    yield "all", {}
    yield "name", {"name": RARE[0]}
    yield "name, of many uids", {"name": MORE_TASKS_NAME}
    yield "uid", {"uid": RARE[1]}
    for status in Status.values:
        yield f"status={status}", {"status": status}
    yield "search, in all", {"search": "fetch"}
    yield "search, in a few", {"search": RARE[0]}
    yield "search, in none", {"search": "no-such-word"}


def api_questions(values: Values) -> Iterator[Question]:
    """Yield the questions to the API."""
    orders = _choices(TaskRunFilter, "ordering")
    for name, query in run_filters(values):
        yield Question("API, runs", name, RUNS, query, orders)
    yield Question("API, runs", "page 2", RUNS, {"page": "2"})
    yield Question("API, runs", "page 500, the last", RUNS, {"page": "500"}, orders)
    yield Question("API, runs", "pages of 100", RUNS, {"page_size": "100"}, orders)
    yield Question("API, runs", "one run", f"{RUNS}{values.run.pk}/", {})
    for days in (1, 7, 30):
        span = {"started_from": values.ago(days=days)}
        yield Question(
            "API, summary", f"{days} days" if days > 1 else "a day", f"{RUNS}summary/", span
        )
    query = {"started_from": values.ago(days=30), "name": COMMON[0]}
    yield Question("API, summary", "30 days of one name", f"{RUNS}summary/", query)
    orders = _choices(SystemTaskFilter, "ordering")
    for name, query in task_filters():
        yield Question("API, tasks", name, TASKS, query, orders)
    yield Question("API, tasks", "one task", f"{TASKS}{values.run.system_task_id}/", {})


def admin_questions(values: Values) -> Iterator[Question]:
    """Yield the questions to the admin."""
    runs, tasks = f"{ADMIN}/taskrun/", f"{ADMIN}/systemtask/"
    orders = _columns(TaskRun)
    day = {"from": values.ago(days=30), "until": values.ago(days=29)}
    filters: list[tuple[str, Query]] = [
        ("all", {}),
        ("task, of an eighth", {"system_task": str(system_task_uuid(*COMMON))}),
        ("task, rare", {"system_task": str(system_task_uuid(*RARE))}),
        *((f"state={state}", {"state": state}) for state in State.values),
        *((f"status={status}", {"status": status}) for status in Status.values),
        ("queue", {"queue": "urgent"}),
        ("worker", {"worker": values.run.worker}),
        *((f"started={span}", {"started": span}) for span in ("hour", "day", "today", "week")),
        ("one day", day),
        (
            "task and state=failure",
            {"system_task": str(system_task_uuid(*COMMON)), "state": "failure"},
        ),
        ("queue and one day", {"queue": "urgent", **day}),
        ("q, a Celery id", {"q": values.run.celery_id}),
        ("q, the beginning of one", {"q": values.run.celery_id[:8]}),
        ("q, another part of one", {"q": values.run.celery_id[9:18]}),
        ("q, another part of one, of a day", {"q": values.run.celery_id[9:18], **day}),
        ("q, a line of a log", {"q": f"Task {RARE[0]}[{values.run.celery_id}] raised"}),
        ("q, a context", {"q": "user:77"}),
        ("q, a context, of a day", {"q": "user:77", **day}),
        ("q, the uid of a task", {"q": RARE[1]}),
        ("q, a task of many uids", {"q": MORE_TASKS_NAME}),
        ("q, a common name", {"q": COMMON[0]}),
        ("q, a rare name", {"q": RARE[0]}),
        ("q, unknown", {"q": "no-such-word"}),
        ("q, in all errors", {"q": "has no address"}),
        ("q, in one error a day", {"q": "order 77"}),
        ("acknowledged=no", {"acknowledged": "no"}),
        ("acknowledged=yes", {"acknowledged": "yes"}),
        ("same error", {"same_error": str(values.failed.pk)}),
    ]
    for name, query in filters:
        yield Question("admin, runs", name, runs, query, orders)
    yield Question("admin, runs", "page 200, the last", runs, {"p": "200"}, orders)
    orders = _columns(SystemTask)
    filters = [
        ("all", {}),
        *((f"status={status}", {"status": status}) for status in Status.values),
        *((f"started={span}", {"started": span}) for span in ("hour", "week")),
        ("q, in all", {"q": "fetch"}),
        ("q, in a few", {"q": RARE[0]}),
        ("q, in none", {"q": "no-such-word"}),
        ("q, in one of many uids", {"q": "user-777777"}),
    ]
    for name, query in filters:
        yield Question("admin, tasks", name, tasks, query, orders)
    yield from admin_pages(values)


def admin_pages(values: Values) -> Iterator[Question]:
    """Yield the questions to the admin that are no lists."""
    runs, tasks = f"{ADMIN}/taskrun/", f"{ADMIN}/systemtask/"
    day = {"from": values.ago(days=30), "until": values.ago(days=29)}
    pages: list[tuple[str, str, Query]] = [
        ("index", "/admin/", {}),
        ("home", f"{tasks}home/", {}),
        ("schedule", f"{ADMIN}/scheduleentry/", {}),
        *(
            (f"task, {name}", f"{tasks}{system_task_uuid(*task)}/change/", {})
            for name, task in (("of an eighth", COMMON), ("rare", RARE))
        ),
        *(
            (f"run, {name}", f"{runs}{run.pk}/change/", {})
            for name, run in (
                ("ended", values.run),
                ("sent by another", values.child),
                ("retry", values.retry),
                ("running", values.running),
                ("failed, of an eighth", values.failed),
                ("failed, of another task", values.failed_rarely),
            )
        ),
        ("find, a Celery id", "/admin/search/", {"s": values.run.celery_id}),
        ("find, a common name", "/admin/search/", {"s": COMMON[0]}),
        ("find, a part of all names", "/admin/search/", {"s": "task"}),
        ("find, unknown", "/admin/search/", {"s": "no-such-word"}),
        *(
            (f"export, the first rows of {name}", f"{path}export.csv", query)
            for name, path, query in (
                ("all runs", runs, {}),
                ("failed runs", runs, {"state": "failure"}),
                ("a rare task", runs, {"system_task": str(system_task_uuid(*RARE))}),
                ("one day", runs, day),
                ("all tasks", tasks, {}),
            )
        ),
    ]
    for name, path, query in pages:
        yield Question("admin, pages", name, path, query)


def not_asked(questions: list[Question]) -> list[str]:
    """Return the filters of the API and of the admin that no question has."""
    missing = []
    for group, filters in (("API, runs", TaskRunFilter), ("API, tasks", SystemTaskFilter)):
        asked = {key for each in questions if each.group == group for key in each.query}
        missing += [
            f"{group}: {name}" for name in filters.base_filters if name not in {*asked, "ordering"}
        ]
    for group, model in (("admin, runs", TaskRun), ("admin, tasks", SystemTask)):
        asked = {key for each in questions if each.group == group for key in each.query}
        parts: Any = admin.site.get_model_admin(model).list_filter
        missing += [f"{group}: {p.parameter_name}" for p in parts if p.parameter_name not in asked]
    return missing


def _choices(filters: Any, name: str) -> tuple[Query, ...]:  # noqa: ANN401
    choices = filters.base_filters[name].extra["choices"]
    return tuple({name: str(value)} for value, _ in choices)


def _columns(model: Any) -> tuple[Query, ...]:  # noqa: ANN401
    """Return the orders of a list in the admin: each column that has one, up and down."""
    model_admin = admin.site.get_model_admin(model)
    numbers = [
        number
        for number, name in enumerate(model_admin.list_display)
        if getattr(getattr(model_admin, str(name), None), "admin_order_field", None)
    ]
    return tuple({"o": f"{sign}{number}"} for number in numbers for sign in ("", "-"))
