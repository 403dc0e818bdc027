"""Acknowledge failed runs: somebody looks at them, and says so with a note."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import pgettext

from systemtasks.admin_parts.base import ReadOnlyAdmin, with_unseen_shown_in
from systemtasks.admin_parts.errors import ErrorGroup, group_of
from systemtasks.admin_parts.text import NOTHING, first_line, number_text
from systemtasks.models import ACKNOWLEDGEABLE, NOTE_LIMIT, Acknowledgement, TaskRun
from systemtasks.states import UNFINISHED, Status

PERMISSION = "systemtasks.acknowledge_taskrun"
NEWEST = 2_000
"""The acknowledgements that the home page looks at, at most."""


def may_acknowledge(request: HttpRequest) -> bool:
    """Return True if the user may acknowledge failed runs."""
    return request.user.has_perm(PERMISSION)


def can_be_acknowledged(run: TaskRun) -> bool:
    """Return True if the run has ended, and not well."""
    return run.is_finished and run.status in ACKNOWLEDGEABLE


def seen_text(found: Acknowledgement, count: int = 1, of: int = 1) -> str:
    """Return who looks at failed runs, such as `2 of 3 seen by ops: looking at the bank`."""
    if count < of:
        # Translators: failed runs, such as "2 of 3 seen by ops".
        text = pgettext("systemtasks", "{} of {} seen by {}")
        text = text.format(number_text(count), number_text(of), found.user)
    else:
        text = pgettext("systemtasks", "seen by {}").format(found.user)
    return f"{text}: {found.note}" if found.note else text


def of_runs(runs: Iterable[UUID]) -> dict[UUID, Acknowledgement]:
    """Return the acknowledgements of these runs, by one query, or none without a run."""
    return Acknowledgement.objects.in_bulk([*runs])


@dataclass(frozen=True, slots=True)
class Seen:
    """The acknowledgements of some failures of one task."""

    newest: Acknowledgement
    count: int


def seen_since(start: datetime, tasks: Collection[UUID]) -> dict[UUID, Seen]:
    """Return the acknowledged failures of these tasks that started at this time or later.

    Two queries at most. Whoever acknowledges a failure does so after it.
    """
    if not tasks:
        return {}
    newest = Acknowledgement.objects.filter(timestamp__gte=start).order_by("-timestamp")
    by_run = {one.run: one for one in newest[:NEWEST]}
    if not by_run:
        return {}
    runs = TaskRun.objects.filter(
        pk__in=by_run, system_task__in=tasks, status=Status.ERROR, sort_timestamp__gte=start
    )
    found: dict[UUID, list[Acknowledgement]] = {}
    for run, task in runs.order_by().values_list("pk", "system_task_id"):
        found.setdefault(task, []).append(by_run[run])
    return {
        task: Seen(max(those, key=lambda one: one.timestamp), len(those))
        for task, those in found.items()
    }


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of errors on the page of its task, with who looks at it."""

    group: ErrorGroup
    seen: str


def with_seen(groups: list[ErrorGroup]) -> list[GroupRow]:
    """Return the groups with who looks at their runs, by one query."""
    found = of_runs(run for group in groups for run in group.runs)
    rows = []
    for group in groups:
        seen = [found[run] for run in group.runs if run in found]
        newest = max(seen, key=lambda one: one.timestamp, default=None)
        rows.append(GroupRow(group, seen_text(newest, len(seen), group.count) if newest else ""))
    return rows


def acknowledge(runs: Collection[UUID], user: str, note: str) -> int:
    """Acknowledge those of these runs that have failed. Return how many were not before.

    Of two users who do so at once, the first one is on record.
    """
    now = timezone.now()
    with transaction.atomic(using=Acknowledgement.objects.db):
        failed = TaskRun.objects.filter(pk__in=runs, status__in=ACKNOWLEDGEABLE)
        found = failed.exclude(state__in=UNFINISHED).order_by().values_list("pk", flat=True)
        rows = [Acknowledgement(run=run, user=user, timestamp=now, note=note) for run in found]
        Acknowledgement.objects.bulk_create(rows, ignore_conflicts=True)
        made = Acknowledgement.objects.filter(run__in=runs, user=user, timestamp=now, note=note)
        return made.count()


def note_of(text: str) -> str:
    """Return a note as it is kept: one line. Raise ValueError if it is too long."""
    note = " ".join(text.replace("\0", "").split())
    if len(note) > NOTE_LIMIT:
        raise ValueError(note)
    return note


class AcknowledgeAdmin(ReadOnlyAdmin):
    """An admin of runs that can be acknowledged, each alone or all with the same error."""

    def get_urls(self) -> list[Any]:
        view = self.explaining(self.admin_site.admin_view(self.acknowledge_view))
        name = "systemtasks_taskrun_acknowledge"
        return [path("<uuid:pk>/acknowledge/", view, name=name), *super().get_urls()]

    def acknowledge_url(self, request: HttpRequest, run: TaskRun) -> str:
        """Return the address of the page that asks for a note, or "" if it is of no use."""
        if not may_acknowledge(request) or not can_be_acknowledged(run):
            return ""
        return reverse(f"{self.admin_site.name}:systemtasks_taskrun_acknowledge", args=[run.pk])

    def acknowledge_view(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """Ask for a note, and acknowledge the run, or undo that. With `all`, all like it."""
        run: TaskRun | None = self.get_object(request, str(pk))
        if not may_acknowledge(request) or not self.has_view_permission(request, run):
            raise PermissionDenied
        if run is None:
            raise Http404
        group, bound = group_of(run) if "all" in request.GET else (None, "")
        runs = group.runs if group else [run.pk]
        if request.method != "POST":
            return self._ask_for_note(request, run, group, bound)
        if (shown := request.POST.get("newest")) and group:
            # Runs that have failed since the page was shown stay as they are: nobody has seen them.
            first = next((i for i, one in enumerate(runs) if str(one) == shown), 0)
            runs = runs[first:]
        if request.POST.get("action") == "undo":
            return self._undo(request, run, group, runs)
        try:
            note = note_of(request.POST.get("note", ""))
        except ValueError as error:
            text = pgettext("systemtasks", "A note has %d characters at most.") % NOTE_LIMIT
            return self._ask_for_note(request, run, group, bound, str(error), text)
        return self._acknowledge(request, run, group, runs, note)

    def _ask_for_note(
        self,
        request: HttpRequest,
        run: TaskRun,
        group: ErrorGroup | None,
        bound: str,
        note: str = "",
        refusal: str = "",
    ) -> HttpResponse:
        runs = group.runs if group else [run.pk]
        found = of_runs(runs)
        seen = [found[one] for one in runs if one in found]
        newest = max(seen, key=lambda one: one.timestamp, default=None)
        request.current_app = self.admin_site.name
        names = f"{self.admin_site.name}:systemtasks_taskrun"
        context = {
            **self.admin_site.each_context(request),
            "title": pgettext("systemtasks", "Acknowledge"),
            "subtitle": None,
            "opts": self.opts,
            "row": run,
            "can": can_be_acknowledged(run),
            "group": group,
            "bound": bound,
            "error": group.text if group else first_line(run.exception) or NOTHING,
            "seen": newest,
            "seen_text": seen_text(newest, len(seen), len(runs)) if newest else "",
            "open": len(runs) - len(seen),
            "note": note,
            "note_limit": NOTE_LIMIT,
            "refusal": refusal,
            "list_url": reverse(f"{names}_changelist"),
            "row_url": self._url_after(request, run, group),
        }
        return with_unseen_shown_in(
            TemplateResponse(request, "systemtasks/acknowledge.html", context)
        )

    def _acknowledge(
        self,
        request: HttpRequest,
        run: TaskRun,
        group: ErrorGroup | None,
        runs: list[UUID],
        note: str,
    ) -> HttpResponse:
        made = acknowledge(runs, request.user.get_username(), note)
        if made:
            self._log(request, run, group, f"Acknowledge ({made})", note)
            text = pgettext("systemtasks", "Acknowledged: {}").format(number_text(made))
            messages.success(request, text)
        elif other := max(of_runs(runs).values(), key=lambda one: one.timestamp, default=None):
            messages.warning(request, seen_text(other))
        else:
            messages.error(request, pgettext("systemtasks", "It has not failed."))
        return HttpResponseRedirect(self._url_after(request, run, group))

    def _undo(
        self, request: HttpRequest, run: TaskRun, group: ErrorGroup | None, runs: list[UUID]
    ) -> HttpResponse:
        undone, _ = Acknowledgement.objects.filter(run__in=runs).delete()
        if undone:
            self._log(request, run, group, f"Undo the acknowledgement ({undone})", "")
        text = pgettext("systemtasks", "No longer acknowledged: {}").format(number_text(undone))
        messages.success(request, text)
        return HttpResponseRedirect(self._url_after(request, run, group))

    def _log(
        self, request: HttpRequest, run: TaskRun, group: ErrorGroup | None, what: str, note: str
    ) -> None:
        """Add a line to Django's log of the admin, which others read, and so is in English."""
        row = run.system_task if group else run
        about = f" {group.text}" if group else ""
        self.log_change(request, row, f"{what}{about}{f': {note}' if note else '.'}")

    def _url_after(self, request: HttpRequest, run: TaskRun, group: ErrorGroup | None) -> str:
        if group and request.user.has_perm("systemtasks.view_systemtask"):
            name = f"{self.admin_site.name}:systemtasks_systemtask_change"
            return reverse(name, args=[run.system_task_id])
        return reverse(f"{self.admin_site.name}:systemtasks_taskrun_change", args=[run.pk])
