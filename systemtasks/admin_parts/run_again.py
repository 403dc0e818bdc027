"""Run again, in the admin: a page that shows what is sent, and asks first.

It uses `systemtasks.rerun` alone, so that it is there in projects without the API.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import pgettext

from systemtasks.admin_parts.base import ReadOnlyAdmin, with_unseen_shown_in
from systemtasks.admin_parts.text import argument_blocks
from systemtasks.models import RunAgain, SystemTask, TaskRun
from systemtasks.rerun import (
    BrokerAwayError,
    NotRerunnableError,
    Sent,
    asked_by,
    check_record,
    planned,
    planned_run,
    send_again,
)

PERMISSION = "systemtasks.run_systemtask"


def may_run_again(request: HttpRequest) -> bool:
    """Return True if the user may run tasks again."""
    return request.user.has_perm(PERMISSION)


def earlier(keys: Iterable[UUID]) -> dict[UUID, RunAgain]:
    """Return when these runs and tasks were run again last, by one query."""
    rows = RunAgain.objects.filter(run__in=[*keys]).exclude(celery_id="")
    return {one.run: one for one in rows.order_by("pk")}


def newest_claim() -> int:
    """Return the key of the newest row, by which a later page knows what came after this one."""
    return RunAgain.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def claim(key: UUID, run: UUID, user: str, shown: str) -> tuple[RunAgain, bool]:
    """Return the row of what is to be sent now, and True if it is to be sent.

    It is not if the page with this key has sent it, or if another one has since this one was
    shown. `shown` is the `newest_claim` of that time. Of two pages that are confirmed at once,
    the first one sends.
    """
    values = {"user": user, "timestamp": timezone.now()}
    row, is_new = RunAgain.objects.get_or_create(key=key, run=run, defaults=values)
    if not is_new:
        return row, False
    if shown.isascii() and shown.isdecimal() and len(shown) < len(str(2**63)):
        since = RunAgain.objects.filter(run=run, pk__gt=int(shown), pk__lt=row.pk, problem="")
        if other := since.exclude(key=key).order_by("pk").first():
            text = pgettext("systemtasks", "Not sent: {} has run it again since you were asked.")
            row.problem = text.format(other.user)
            row.save(update_fields=["problem"])
            return row, False
    return row, True


class RunAgainAdmin(ReadOnlyAdmin):
    """An admin whose rows, tasks or runs, can be run again."""

    @property
    def _run_again_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_run_again"

    def get_urls(self) -> list[Any]:
        # Each claim is committed at once, so that another request sees it.
        @transaction.non_atomic_requests
        def again(request: HttpRequest, pk: UUID) -> HttpResponseBase:
            return self.run_again_view(request, pk)

        view = self.explaining(self.admin_site.admin_view(again))
        name = self._run_again_name
        return [path("<uuid:pk>/run-again/", view, name=name), *super().get_urls()]

    def run_again_url(self, request: HttpRequest, row: SystemTask | TaskRun) -> str:
        """Return the address of the page that asks first, or "" if the user may not do it."""
        if not may_run_again(request):
            return ""
        return reverse(f"{self.admin_site.name}:{self._run_again_name}", args=[row.pk])

    def run_again_view(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """Show what would be sent, and send it if that is confirmed."""
        row: SystemTask | TaskRun | None = self.get_object(request, str(pk))
        if not may_run_again(request) or not self.has_view_permission(request, row):
            raise PermissionDenied
        if row is None:
            raise Http404
        try:
            # A task may have run since the page was shown: what was shown is what is sent.
            sent = _what(row, request.POST.get("run", ""))
            check_record(sent)
        except NotRerunnableError as error:
            return self._ask(request, row, None, str(error))
        if request.method == "POST":
            return self._send(request, row, sent)
        return self._ask(request, row, sent, "")

    def _ask(
        self, request: HttpRequest, row: SystemTask | TaskRun, sent: Sent | None, refusal: str
    ) -> HttpResponse:
        may_view_runs = request.user.has_perm("systemtasks.view_taskrun")
        names = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}"
        request.current_app = self.admin_site.name
        key = sent.run or row.pk if sent else row.pk
        context = {
            **self.admin_site.each_context(request),
            "title": pgettext("systemtasks", "Run again"),
            "key": uuid4(),
            "shown": newest_claim(),
            "before": earlier([key]).get(key),
            "subtitle": None,
            "opts": self.opts,
            "row": row,
            "task": row if isinstance(row, SystemTask) else row.system_task,
            "sent": sent,
            "refusal": refusal,
            "arguments": argument_blocks(sent.args, sent.kwargs) if sent else (),
            "may_view_arguments": may_view_runs,
            "list_url": reverse(f"{names}_changelist"),
            "row_url": reverse(f"{names}_change", args=[row.pk]),
        }
        return with_unseen_shown_in(
            TemplateResponse(request, "systemtasks/run_again.html", context)
        )

    def _send(self, request: HttpRequest, row: SystemTask | TaskRun, sent: Sent) -> HttpResponse:
        user = request.user.get_username()
        shown = request.POST.get("shown", "")
        row_sent, is_sent_now = claim(_key(request), sent.run or row.pk, user, shown)
        if is_sent_now:
            self._send_now(request, row, sent, row_sent)
        elif row_sent.celery_id:
            messages.success(request, self._sent_text(request, row_sent.celery_id))
        else:
            text = pgettext("systemtasks", "It is being sent already.")
            messages.warning(request, row_sent.problem or text)
        name = f"{self.opts.app_label}_{self.opts.model_name}_change"
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:{name}", args=[row.pk]))

    def _send_now(
        self, request: HttpRequest, row: SystemTask | TaskRun, sent: Sent, row_sent: RunAgain
    ) -> None:
        # The log is in English: others read it, in other languages.
        try:
            row_sent.celery_id = send_again(sent, asked_by(row_sent.user, sent))
        except NotRerunnableError as error:
            row_sent.problem = str(error)
            messages.error(request, str(error))
        except BrokerAwayError as error:
            row_sent.problem = str(error)
            self.log_change(request, row, f"Run again: {error}")  # it may have been sent
            messages.error(request, str(error))
        else:
            self.log_change(request, row, f"Run again, as {row_sent.celery_id}.")
            messages.success(request, self._sent_text(request, row_sent.celery_id))
        row_sent.save(update_fields=["celery_id", "problem"])

    def _sent_text(self, request: HttpRequest, celery_id: str) -> SafeString:
        text: Any = celery_id
        if request.user.has_perm("systemtasks.view_taskrun"):
            url = reverse(f"{self.admin_site.name}:systemtasks_taskrun_changelist")
            text = format_html(
                '<a href="{}?{}">{}</a>', url, urlencode({"q": celery_id}), celery_id
            )
        return format_html(pgettext("systemtasks", "Sent again as {}."), text)


def _key(request: HttpRequest) -> UUID:
    """Return the key of the page that was confirmed, or a new one for a client without it."""
    try:
        return UUID(request.POST.get("key", ""))
    except ValueError:
        return uuid4()


def _what(row: SystemTask | TaskRun, shown: str) -> Sent:
    """Return what is sent: of a task, its last run, or the one that the page has shown.

    Raise NotRerunnableError if nothing is on record, and Http404 for a run that is not the task's.
    """
    if isinstance(row, TaskRun):
        return planned_run(row)
    if not shown:
        return planned(row)
    try:
        run = row.runs.filter(pk=UUID(shown)).first()
    except ValueError:
        run = None
    if run is None:
        raise Http404
    return planned_run(run)
