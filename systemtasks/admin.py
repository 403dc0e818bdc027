"""The admin of tasks and runs. It is read-only.

It is in Django's own site. A project that has another one calls `register` with it.
"""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Case, F, IntegerField, Q, QuerySet, When
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import pgettext, pgettext_lazy

from systemtasks.admin_parts.base import ReadOnlyAdmin
from systemtasks.admin_parts.cells import ago, badge, started, two_lines, which_one
from systemtasks.admin_parts.counting import VALUE_LIMIT
from systemtasks.admin_parts.filters import (
    QueueFilter,
    RunTimeFilter,
    StateFilter,
    StatusFilter,
    TaskFilter,
    TimeFilter,
    WorkerFilter,
)
from systemtasks.admin_parts.text import (
    LONGEST_LINE,
    duration_text,
    first_line,
    log_lines,
    worst_line,
)
from systemtasks.models import (
    SYSTEM_TASK_SEARCH,
    ScheduleEntry,
    SystemTask,
    SystemTaskQuerySet,
    TaskRun,
)
from systemtasks.states import Status

LAST_RUNS = 25
SEVERITY = Case(
    *(
        When(status=status, then=rank)
        for rank, status in enumerate((Status.ERROR, Status.WARNING, Status.UNKNOWN))
    ),
    default=3,
    output_field=IntegerField(),
)
FAILURE = Left("exception", LONGEST_LINE + 1)
LAST_EVENT = Left(KeyTextTransform("event", KeyTransform("-1", F("messages"))), LONGEST_LINE + 1)
RUN_COLUMNS = (
    "id",
    "system_task",
    "celery_id",
    "attempt",
    "number",
    "state",
    "status",
    "queue",
    "worker",
    "sent_timestamp",
    "start_timestamp",
    "wait",
    "duration",
)


def _table(runs: "QuerySet[TaskRun]", limit: int) -> list[TaskRun]:
    return list(runs.only(*RUN_COLUMNS).annotate(failure=FAILURE)[:limit])


class SystemTaskAdmin(ReadOnlyAdmin):
    """Lists each task with the outcome of its last run."""

    list_display = ("badge", "task", "last_message", "started", "took")
    list_display_links = ("task",)
    list_filter = (StatusFilter, TimeFilter)
    counts_statuses = True
    search_fields = (*SYSTEM_TASK_SEARCH, "messages")
    search_help_text = pgettext_lazy("systemtasks", "Name, description or message")
    change_form_template = "systemtasks/system_task.html"

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        shown: QuerySet[Any] = rows.defer("messages").annotate(last_event=LAST_EVENT)
        return shown

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        tasks: SystemTaskQuerySet = queryset  # type: ignore[assignment]
        return tasks.containing(search_term.split()), False

    def page_context(self, request: HttpRequest, row: SystemTask) -> dict[str, Any]:
        log = log_lines(row.messages)
        may_view_runs = request.user.has_perm("systemtasks.view_taskrun")
        return {
            "log": log,
            "worst": worst_line(log),
            "may_view_runs": may_view_runs,
            "runs": _table(row.runs.newest_first(), LAST_RUNS) if may_view_runs else (),
            "schedule": ScheduleEntry.objects.filter(task=row.name, uid=row.uid),
        }

    @admin.display(description=pgettext_lazy("systemtasks", "status"), ordering=SEVERITY)
    def badge(self, row: SystemTask) -> SafeString:
        return badge(row)

    @admin.display(description=pgettext_lazy("systemtasks", "task"), ordering="name")
    def task(self, row: SystemTask) -> SafeString:
        return two_lines(row.full_name, first_line(row.description))

    @admin.display(description=pgettext_lazy("systemtasks", "last message"))
    def last_message(self, row: SystemTask) -> str:
        return first_line(row.last_event or "")  # type: ignore[attr-defined]

    @admin.display(description=pgettext_lazy("systemtasks", "started"), ordering="start_timestamp")
    def started(self, row: SystemTask) -> str:
        return ago(row.start_timestamp)

    @admin.display(description=pgettext_lazy("systemtasks", "duration"), ordering="duration")
    def took(self, row: SystemTask) -> str:
        return duration_text(row.duration)


class TaskRunAdmin(ReadOnlyAdmin):
    """Lists each execution of each task."""

    list_display = ("badge", "run", "task", "started", "took", "waited", "place")
    list_display_links = ("run",)
    list_filter = (StatusFilter, TaskFilter, StateFilter, QueueFilter, WorkerFilter, RunTimeFilter)
    search_fields = ("celery_id", "system_task__name")
    search_help_text = pgettext_lazy("systemtasks", "Celery id or task")
    change_form_template = "systemtasks/task_run.html"

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        columns = (*RUN_COLUMNS, "system_task__name", "system_task__uid")
        shown: QuerySet[Any] = rows.select_related("system_task").annotate(failure=FAILURE)
        return shown.only(*columns)

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        words = search_term.split()
        if not words:
            return queryset, False
        named = SystemTask.objects.all()
        for word in words:
            named = named.filter(Q(name__icontains=word) | Q(uid__icontains=word))
        # Uuids instead of a subquery, so that the planner can use both indexes.
        uuids = list(named.values_list("uuid", flat=True)[:VALUE_LIMIT])
        return queryset.filter(
            Q(celery_id__startswith=search_term.strip()) | Q(system_task__in=uuids)
        ), False

    def page_context(self, request: HttpRequest, row: TaskRun) -> dict[str, Any]:
        # Newest first, since an id may be used again and again, and the table has a limit.
        executions = _table(
            TaskRun.objects.filter(celery_id=row.celery_id).newest_first(), VALUE_LIMIT
        )
        related = TaskRun.objects.in_bulk(
            [id_ for id_ in (row.parent_run, row.replaces, row.replaced_by, row.message) if id_]
        )
        return {
            "log": log_lines(row.messages),
            "executions": executions,
            "links": [
                (title, id_, id_ in related)
                for title, id_ in (
                    (pgettext("systemtasks", "Sent in the run"), row.parent_run),
                    (pgettext("systemtasks", "Replaces the run"), row.replaces),
                    (pgettext("systemtasks", "Replaced by the run"), row.replaced_by),
                    (pgettext("systemtasks", "First execution"), row.message),
                )
                if id_
            ],
            "may_view_task": request.user.has_perm("systemtasks.view_systemtask"),
        }

    # In alphabetical order, errors come first, and there is an index for it.
    @admin.display(description=pgettext_lazy("systemtasks", "status"), ordering="status")
    def badge(self, row: TaskRun) -> SafeString:
        return badge(row)

    @admin.display(description=pgettext_lazy("systemtasks", "run"))
    def run(self, row: TaskRun) -> SafeString:
        return format_html(
            '<code title="{}">{}</code> {}', row.celery_id, row.celery_id[:8], which_one(row)
        )

    @admin.display(description=pgettext_lazy("systemtasks", "task"))
    def task(self, row: TaskRun) -> SafeString:
        return two_lines(row.system_task.full_name, first_line(row.failure))  # type: ignore[attr-defined]

    @admin.display(description=pgettext_lazy("systemtasks", "started"), ordering="sort_timestamp")
    def started(self, row: TaskRun) -> str:
        return started(row)

    @admin.display(
        description=pgettext_lazy("systemtasks", "duration"),
        ordering=F("duration").asc(nulls_first=True),
    )
    def took(self, row: TaskRun) -> str:
        return duration_text(row.duration)

    @admin.display(
        description=pgettext_lazy("systemtasks", "wait"), ordering=F("wait").asc(nulls_first=True)
    )
    def waited(self, row: TaskRun) -> str:
        return duration_text(row.wait)

    @admin.display(description=pgettext_lazy("systemtasks", "queue and worker"), ordering="queue")
    def place(self, row: TaskRun) -> SafeString:
        return two_lines(row.queue, row.worker)


class ScheduleEntryAdmin(ReadOnlyAdmin):
    """Lists the entries of beat's schedule."""

    change_list_template = (
        "admin/change_list.html"  # Django's own, since an entry has neither a status nor a start
    )
    list_display = ("name", "words", "due", "sent", "enabled")
    list_display_links = None
    list_filter = ("enabled",)
    search_fields = ("entry", "task", "uid")
    search_help_text = pgettext_lazy("systemtasks", "Entry or task")

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:  # noqa: ANN401
        return ChangeList

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ANN401
        """Return True if the user may view the tasks: there is no other permission for entries."""
        return request.user.has_perm("systemtasks.view_systemtask")

    def page_context(self, request: HttpRequest, row: ScheduleEntry) -> dict[str, Any]:
        return {}

    @admin.display(description=pgettext_lazy("systemtasks", "task and entry"), ordering="task")
    def name(self, row: ScheduleEntry) -> SafeString:
        return two_lines(row.full_name, row.entry if row.entry != row.full_name else "")

    @admin.display(description=pgettext_lazy("systemtasks", "next due"), ordering="next_due")
    def due(self, row: ScheduleEntry) -> str:
        return ago(row.next_due)

    @admin.display(description=pgettext_lazy("systemtasks", "last sent"), ordering="last_sent")
    def sent(self, row: ScheduleEntry) -> str:
        return ago(row.last_sent)


ADMINS: tuple[tuple[Any, type[ReadOnlyAdmin]], ...] = (
    (SystemTask, SystemTaskAdmin),
    (TaskRun, TaskRunAdmin),
    (ScheduleEntry, ScheduleEntryAdmin),
)


def register(site: admin.AdminSite) -> None:
    """Add the tasks, the runs and the schedule to an admin site, unless it has them."""
    for model, model_admin in ADMINS:
        if not site.is_registered(model):
            site.register(model, model_admin)


register(admin.site)
