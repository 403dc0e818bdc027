"""The admin of tasks and runs. It is read-only.

It is in Django's own site. A project that has another one calls `register` with it.
"""

import json
from collections.abc import Iterable
from datetime import timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import Case, F, IntegerField, QuerySet, When
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Left
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import pgettext, pgettext_lazy

from systemtasks.admin_parts import run_page, task_page, timeline
from systemtasks.admin_parts.acknowledging import (
    AcknowledgeAdmin,
    can_be_acknowledged,
    may_acknowledge,
    of_runs,
    seen_text,
    with_seen,
)
from systemtasks.admin_parts.base import ReadOnlyAdmin
from systemtasks.admin_parts.cells import (
    ago,
    badge,
    has_run,
    started,
    two_lines,
    which_one,
    word,
)
from systemtasks.admin_parts.comparing import compared
from systemtasks.admin_parts.counting import VALUE_LIMIT
from systemtasks.admin_parts.errors import errors_of
from systemtasks.admin_parts.export import Column, pages
from systemtasks.admin_parts.family import family_of
from systemtasks.admin_parts.filters import (
    ENDED,
    AcknowledgedFilter,
    EnabledFilter,
    QueueFilter,
    RunTimeFilter,
    SameErrorFilter,
    StateFilter,
    StatusFilter,
    TaskFilter,
    TaskTimeFilter,
    WorkerFilter,
    is_short,
)
from systemtasks.admin_parts.finding import ERRORS_LIMIT, WORDS_LIMIT, Search, meaning, of_task
from systemtasks.admin_parts.home import Home
from systemtasks.admin_parts.lately import Lately, lately, with_failures
from systemtasks.admin_parts.menu import extend_app_list
from systemtasks.admin_parts.rows import RowList
from systemtasks.admin_parts.run_again import may_run_again
from systemtasks.admin_parts.run_again_many import RunAgainManyAdmin
from systemtasks.admin_parts.text import (
    LONGEST_LINE,
    NOTHING,
    argument_blocks,
    duration_text,
    first_line,
    log_lines,
    number_text,
    worst_line,
)
from systemtasks.models import (
    SYSTEM_TASK_SEARCH,
    Acknowledgement,
    ScheduleEntry,
    SystemTask,
    SystemTaskQuerySet,
    TaskRun,
)
from systemtasks.states import State, Status

LAST_RUNS = 25
NEWEST = ("sort_timestamp", "id")
"""The order of runs, for an export."""
SEVERITY = Case(
    *(
        When(status=status, then=rank)
        for rank, status in enumerate((Status.ERROR, Status.WARNING, Status.UNKNOWN))
    ),
    default=3,
    output_field=IntegerField(),
)
LAST_START = Case(When(sort_timestamp__isnull=False, then=F("start_timestamp")))
LAST_DURATION = Case(When(sort_timestamp__isnull=False, then=F("duration")))
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


def _table(runs: "QuerySet[TaskRun]", limit: int, *more: str) -> list[TaskRun]:
    return list(runs.only(*RUN_COLUMNS, *more).annotate(failure=FAILURE)[:limit])


def _history(task: SystemTask) -> dict[str, Any]:
    """Return what the page of a task shows of its runs."""
    finished = task.runs.finished().filter(sort_timestamp__isnull=False)
    return {
        "runs": _table(finished.newest_first(), LAST_RUNS),
        "unfinished": task_page.unfinished_of(task, RUN_COLUMNS),
        "month": task_page.month_of(task),
        "percentiles": task_page.percentiles_of(task),
        "errors": (errors := errors_of(task)),
        "error_rows": with_seen(errors.shown),
    }


def _elapsed(run: TaskRun) -> float | None:
    """Return for how many seconds a run has been running, or None if it is not running."""
    if run.state != State.RUNNING or run.start_timestamp is None:
        return None
    elapsed: timedelta = timezone.now() - run.start_timestamp
    return max(elapsed.total_seconds(), 0.0)


class SystemTaskAdmin(RunAgainManyAdmin):
    """Lists each task with the outcome of its last run."""

    list_display = ("badge", "task", "strip", "failures", "last_message", "started", "took")
    list_display_links = ("task",)
    list_filter = (StatusFilter, TaskTimeFilter)
    counts_statuses = True
    pills = (
        (pgettext_lazy("systemtasks", "All"), {}),
        (pgettext_lazy("systemtasks", "Failed"), {"status": Status.ERROR}),
        (pgettext_lazy("systemtasks", "Warning"), {"status": Status.WARNING}),
        (pgettext_lazy("systemtasks", "Successful"), {"status": Status.SUCCESSFUL}),
        (pgettext_lazy("systemtasks", "Unknown"), {"status": Status.UNKNOWN}),
    )
    newest_first = ("failures", "started", "took")
    search_fields = (*SYSTEM_TASK_SEARCH, "messages")
    search_help_text = pgettext_lazy("systemtasks", "Name, description or message")
    change_form_template = "systemtasks/system_task.html"

    def get_urls(self) -> list[Any]:
        view = self.explaining(self.admin_site.admin_view(self.home_view))
        return [path("home/", view, name="systemtasks_home"), *super().get_urls()]

    def home_view(self, request: HttpRequest) -> HttpResponse:
        """Return the home page, or the parts of it that change by themselves."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        may_view_runs = request.user.has_perm("systemtasks.view_taskrun")
        context = {
            **self.admin_site.each_context(request),
            "title": pgettext("systemtasks", "Home"),
            "subtitle": None,
            "home": Home(self.admin_site.name, may_view_runs=may_view_runs),
        }
        return self.live_response(request, context, "home.html", "home_content.html")

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """Return the default order: a task that never ran has no last run, and so is last."""
        return (LAST_START.desc(nulls_last=True),)

    def get_paginator(
        self,
        request: HttpRequest,
        queryset: "QuerySet[Any]",
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401 - as Django's search for a field of another model passes them
    ) -> Any:  # noqa: ANN401
        """Return the paginator. In the default order, the tasks that have run come first."""
        paginator: Any = super().get_paginator(request, queryset, *args, **kwargs)
        order, default = [*queryset.query.order_by], [*self.get_ordering(request)]
        if order[:1] == default:
            have_run = queryset.filter(sort_timestamp__isnull=False)
            others = [part for part in order if part not in default]
            paginator.first_ones = have_run.order_by("-start_timestamp", *others)
        return paginator

    def get_queryset(self, request: HttpRequest) -> "QuerySet[SystemTask]":
        """Return the tasks, with their failures if they are to be ordered by them."""
        tasks: QuerySet[SystemTask] = super().get_queryset(request)
        ordered = {part.lstrip("-") for part in request.GET.get(ORDER_VAR, "").split(".")}
        return with_failures(tasks) if str(FAILURES_COLUMN) in ordered else tasks

    def get_changelist_instance(self, request: HttpRequest) -> Any:  # noqa: ANN401
        """Return the list. Its failures lead to the runs behind them, for who may view runs."""
        cl: Any = super().get_changelist_instance(request)
        if request.user.has_perm("systemtasks.view_taskrun"):
            url = reverse(f"{self.admin_site.name}:systemtasks_taskrun_changelist")
            for row in cl.result_list:
                failed = {"system_task": row.pk, "status": Status.ERROR.value}
                row.failures_url = (
                    f"{url}?{urlencode({**failed, 'started': 'day', 'state': ENDED})}"
                )
        return cl

    def complete(self, rows: list[SystemTask]) -> None:
        found = lately(rows)
        for row in rows:
            row.lately = found[row.pk]  # type: ignore[attr-defined]

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        shown: QuerySet[Any] = rows.defer("messages").annotate(last_event=LAST_EVENT)
        return shown

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        tasks: SystemTaskQuerySet = queryset  # type: ignore[assignment]
        words = of_task(search_term).split()
        return tasks.containing(words) if words else tasks, False

    def export_columns(self) -> list[Column]:
        names = ("uuid", "name", "uid", "description", "status")
        return [
            *((name, attrgetter(name)) for name in names),
            ("start_timestamp", lambda task: task.start_timestamp if has_run(task) else None),
            ("finish_timestamp", lambda task: task.finish_timestamp if has_run(task) else None),
            ("duration", lambda task: task.duration if has_run(task) else None),
            ("last_message", attrgetter("last_event")),
        ]

    def exported(self, rows: "QuerySet[Any]") -> "Iterable[Any]":
        return pages(rows, ("start_timestamp", "uuid"))

    def page_context(self, request: HttpRequest, row: SystemTask) -> dict[str, Any]:
        log = log_lines(row.messages)
        may_view_runs = request.user.has_perm("systemtasks.view_taskrun")
        return {
            "log": log,
            "worst": worst_line(log),
            "run_again_url": self.run_again_url(request, row),
            "may_view_runs": may_view_runs,
            "may_run_again": may_view_runs and may_run_again(request),
            "may_acknowledge": may_view_runs and may_acknowledge(request),
            **(_history(row) if may_view_runs else {}),
            "schedule": ScheduleEntry.objects.filter(task=row.name, uid=row.uid),
        }

    @admin.display(description=pgettext_lazy("systemtasks", "status"), ordering=SEVERITY)
    def badge(self, row: SystemTask) -> SafeString:
        been: Lately = row.lately  # type: ignore[attr-defined]
        return word(Status.ERROR, been.text) if been.is_failing else badge(row)

    @admin.display(description=pgettext_lazy("systemtasks", "task"), ordering="name")
    def task(self, row: SystemTask) -> SafeString:
        return two_lines(row.full_name, first_line(row.description))

    @admin.display(description=pgettext_lazy("systemtasks", "last runs"))
    def strip(self, row: SystemTask) -> SafeString | str:
        return row.lately.strip()  # type: ignore[attr-defined, no-any-return]

    @admin.display(
        description=pgettext_lazy("systemtasks", "failures in 24 h"), ordering="failures_of_day"
    )
    def failures(self, row: SystemTask) -> SafeString | str:
        number = row.lately.failures_of_day  # type: ignore[attr-defined]
        if not number:
            return NOTHING
        url = getattr(row, "failures_url", "")
        return (
            format_html('<a href="{}">{}</a>', url, number_text(number))
            if url
            else number_text(number)
        )

    @admin.display(description=pgettext_lazy("systemtasks", "last message"))
    def last_message(self, row: SystemTask) -> str:
        return first_line(row.last_event or "")  # type: ignore[attr-defined]

    @admin.display(
        description=pgettext_lazy("systemtasks", "started"),
        ordering=LAST_START.asc(nulls_first=True),
    )
    def started(self, row: SystemTask) -> SafeString | str:
        last = ago(row.start_timestamp) if has_run(row) else pgettext("systemtasks", "never")
        due = row.lately.next_due  # type: ignore[attr-defined]
        if not due:
            return last
        return two_lines(last, format_html(pgettext("systemtasks", "next {}"), ago(due)))

    @admin.display(
        description=pgettext_lazy("systemtasks", "duration"),
        ordering=LAST_DURATION.asc(nulls_first=True),
    )
    def took(self, row: SystemTask) -> SafeString | str:
        p95 = row.lately.p95  # type: ignore[attr-defined]
        last = duration_text(row.duration if has_run(row) else None)
        return last if p95 is None else two_lines(last, f"p95 {duration_text(p95)}")


FAILURES_COLUMN = SystemTaskAdmin.list_display.index("failures")


class TaskRunAdmin(AcknowledgeAdmin, RunAgainManyAdmin):
    """Lists each execution of each task."""

    list_display = ("badge", "run", "task", "started", "took", "waited", "place")
    list_display_links = ("run",)
    list_filter = (
        StatusFilter,
        RunTimeFilter,
        TaskFilter,
        StateFilter,
        QueueFilter,
        WorkerFilter,
        AcknowledgedFilter,
        SameErrorFilter,
    )
    pills = (
        (pgettext_lazy("systemtasks", "All"), {}),
        (pgettext_lazy("systemtasks", "Running"), {"state": State.RUNNING}),
        (pgettext_lazy("systemtasks", "Queued"), {"state": State.QUEUED}),
        (pgettext_lazy("systemtasks", "Failed"), {"status": Status.ERROR}),
        (
            pgettext_lazy("systemtasks", "Not acknowledged"),
            {"status": Status.ERROR, "acknowledged": "no"},
        ),
        (pgettext_lazy("systemtasks", "Warning"), {"status": Status.WARNING}),
        (pgettext_lazy("systemtasks", "Successful"), {"status": Status.SUCCESSFUL}),
    )
    newest_first = ("started",)
    search_fields = ("celery_id", "system_task__name")
    search_help_text = pgettext_lazy("systemtasks", "Celery id, task or error")
    change_form_template = "systemtasks/task_run.html"

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        columns = (*RUN_COLUMNS, "system_task__name", "system_task__uid")
        shown: QuerySet[Any] = rows.select_related("system_task").annotate(failure=FAILURE)
        return shown.only(*columns)

    def complete(self, rows: list[TaskRun]) -> None:
        found = of_runs(row.pk for row in rows if can_be_acknowledged(row))
        for row in rows:
            row.seen = found.get(row.pk)  # type: ignore[attr-defined]

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        if not search_term.strip():
            return queryset, False
        search = meaning(search_term)
        request.systemtasks_search = search  # type: ignore[attr-defined]
        condition = search.condition(is_short=is_short(request.GET))
        return queryset.filter(condition), False

    def search_hint(self, cl: RowList) -> dict[str, str]:
        """Return what was not searched because no index finds it, and a link that searches it."""
        if not cl.query.strip():
            return {}
        search: Search = cl.request.systemtasks_search  # type: ignore[attr-defined]
        what = search.what
        if search.are_more_errors:
            text = pgettext("systemtasks", "By their error, the newest {} runs are found.")
            return {"text": text.format(number_text(ERRORS_LIMIT))}
        if is_short(cl.request_parameters) or not what or (what == "part" and cl.result_count):
            return {"text": self._no_errors_text(search)} if not cl.result_count else {}
        if what == "context":
            text = pgettext("systemtasks", "Contexts of senders are only searched in one day.")
        else:
            text = pgettext(
                "systemtasks", "Only the beginning of an id is found in more than one day."
            )
        return {
            "text": text,
            "link": pgettext("systemtasks", "Search the past 24 hours"),
            "url": cl.get_query_string({"started": "day", "from": None, "until": None}),
        }

    def _no_errors_text(self, search: Search) -> str:
        """Return why errors were not searched, or "" if they were."""
        if search.why_no_errors == "short":
            return pgettext(
                "systemtasks", "Errors are only found by three letters or digits in a row."
            )
        if search.why_no_errors == "long":
            text = pgettext("systemtasks", "Errors are only searched for up to %d words.")
            return text % WORDS_LIMIT
        return ""

    def export_columns(self) -> list[Column]:
        names = (
            "id", "celery_id", "attempt", "number", "state", "status", "queue", "worker", "sender",
            "sent_timestamp", "start_timestamp", "finish_timestamp", "wait", "duration",
            "exception", "parent_id", "root_id", "context",
        )  # fmt: skip
        return [
            ("task", lambda run: run.system_task.name),
            ("uid", lambda run: run.system_task.uid),
            *((name, attrgetter(name)) for name in names),
        ]

    def exported(self, rows: "QuerySet[Any]") -> "Iterable[Any]":
        unread = ("args", "kwargs", "messages", "sent_options", "system_task__messages")
        return pages(rows.select_related("system_task").defer(None).defer(*unread), NEWEST)

    def page_context(self, request: HttpRequest, row: TaskRun) -> dict[str, Any]:
        # Newest first, since an id may be used again and again, and the table has a limit.
        executions = _table(
            TaskRun.objects.filter(celery_id=row.celery_id).newest_first(),
            VALUE_LIMIT,
            *timeline.COLUMNS,
        )
        errors = errors_of(row.system_task_id) if row.exception else None
        seen = of_runs([row.pk]).get(row.pk) if can_be_acknowledged(row) else None
        related = TaskRun.objects.in_bulk(
            [id_ for id_ in (row.parent_run, row.replaces, row.replaced_by, row.message) if id_]
        )
        return {
            "log": log_lines(row.messages),
            "run_again_url": self.run_again_url(request, row),
            "acknowledge_url": self.acknowledge_url(request, row),
            "seen": seen,
            "seen_text": seen and seen_text(seen),
            "log_url": "log.json",
            "executions": executions,
            "timeline": timeline.timeline(executions),
            "elapsed": _elapsed(row),
            "progress": run_page.progress_of(row),
            "family": family_of(row),
            "same_error": errors and errors.like(row.exception),
            "error_bound": errors and errors.bound,
            "comparison": compared(row),
            "arguments": argument_blocks(row.args, row.kwargs),
            "context_items": [*run_page.context_items(row)],
            **run_page.links(request, row),
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

    def get_urls(self) -> list[Any]:
        view = self.explaining(self.admin_site.admin_view(self.log_view))
        name = "systemtasks_taskrun_log"
        return [path("<uuid:pk>/change/log.json", view, name=name), *super().get_urls()]

    def log_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Respond with the messages of a run, as JSON."""
        row: TaskRun | None = self.get_object(request, str(pk))
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        if row is None:
            raise Http404
        text = json.dumps(row.messages, indent=2, ensure_ascii=False)
        return HttpResponse(text, content_type="application/json; charset=utf-8")

    # Only the start has an index that gives millions of runs in its order.
    @admin.display(description=pgettext_lazy("systemtasks", "status"))
    def badge(self, row: TaskRun) -> SafeString:
        seen: Acknowledgement | None = row.seen  # type: ignore[attr-defined]
        if seen is None:
            return badge(row)
        text = pgettext("systemtasks", "seen by {}").format(seen.user)
        return format_html(
            '{}<span class="st-second st-seen" title="{}">{}</span>',
            badge(row),
            seen_text(seen),
            text,
        )

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

    @admin.display(description=pgettext_lazy("systemtasks", "duration"))
    def took(self, row: TaskRun) -> str:
        return duration_text(row.duration)

    @admin.display(description=pgettext_lazy("systemtasks", "wait"))
    def waited(self, row: TaskRun) -> str:
        return duration_text(row.wait)

    @admin.display(description=pgettext_lazy("systemtasks", "queue and worker"))
    def place(self, row: TaskRun) -> SafeString:
        return two_lines(row.queue, row.worker)


class ScheduleEntryAdmin(ReadOnlyAdmin):
    """Lists the entries of beat's schedule."""

    list_display = ("name", "schedule", "due", "sent", "is_enabled")
    sorted_by = ("name", "asc")
    list_display_links = None
    list_filter = (EnabledFilter,)
    search_fields = ("entry", "task", "uid")
    search_help_text = pgettext_lazy("systemtasks", "Entry or task")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ANN401
        """Return True if the user may view the tasks: there is no other permission for entries."""
        return request.user.has_perm("systemtasks.view_systemtask")

    def export_columns(self) -> list[Column]:
        names = ("app", "entry", "task", "uid", "words", "next_due", "last_sent", "enabled")
        return [(name, attrgetter(name)) for name in names]

    def page_context(self, request: HttpRequest, row: ScheduleEntry) -> dict[str, Any]:
        return {}

    @admin.display(description=pgettext_lazy("systemtasks", "task and entry"), ordering="task")
    def name(self, row: ScheduleEntry) -> SafeString:
        return two_lines(row.full_name, row.entry if row.entry != row.full_name else "")

    @admin.display(description=pgettext_lazy("systemtasks", "schedule"))
    def schedule(self, row: ScheduleEntry) -> str:
        return row.words or NOTHING

    @admin.display(
        description=pgettext_lazy("systemtasks", "next due"),
        ordering=F("next_due").asc(nulls_last=True),
    )
    def due(self, row: ScheduleEntry) -> str:
        return ago(row.next_due)

    @admin.display(
        description=pgettext_lazy("systemtasks", "last sent"),
        ordering=F("last_sent").asc(nulls_first=True),
    )
    def sent(self, row: ScheduleEntry) -> str:
        return ago(row.last_sent)

    @admin.display(description=pgettext_lazy("systemtasks", "enabled"))
    def is_enabled(self, row: ScheduleEntry) -> SafeString:
        if row.enabled:
            return word("successful", pgettext("systemtasks", "enabled"))
        return word("unknown", pgettext("systemtasks", "not enabled"))


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
    extend_app_list(site)


register(admin.site)
