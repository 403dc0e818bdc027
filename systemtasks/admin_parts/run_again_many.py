"""Run several runs or tasks again: those that are selected in a list, or that have one error."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from django.core.exceptions import BadRequest, PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import pgettext

from systemtasks.admin_parts.base import with_unseen_shown_in
from systemtasks.admin_parts.cells import ago
from systemtasks.admin_parts.errors import group_of
from systemtasks.admin_parts.run_again import (
    RunAgainAdmin,
    claim,
    earlier,
    may_run_again,
    newest_claim,
)
from systemtasks.admin_parts.text import NOTHING, Block, argument_blocks, number_text
from systemtasks.models import RunAgain, SystemTask, TaskRun
from systemtasks.rerun import (
    BrokerAwayError,
    NotRerunnableError,
    NotTriedError,
    RerunError,
    Sender,
    Sent,
    asked_by,
    check_record,
    planned,
    planned_run,
)
from systemtasks.states import State

MOST = 100
"""The runs that are sent at a time."""
UNREAD = ("messages", "system_task__messages")


@dataclass(frozen=True, slots=True)
class Item:
    """A run or a task that is to be run again, and its message or why it has none."""

    row: SystemTask | TaskRun
    sent: Sent | None
    why_not: str = ""
    before: RunAgain | None = None
    """The last time that it was run again, if it was."""

    @property
    def task(self) -> SystemTask:
        """Return its task."""
        return self.row if isinstance(self.row, SystemTask) else self.row.system_task

    @property
    def run(self) -> UUID | None:
        """Return the id of the run whose message is sent."""
        return self.sent.run if self.sent else None

    @property
    def arguments(self) -> list[Block]:
        """Return the arguments as text."""
        return argument_blocks(self.sent.args, self.sent.kwargs) if self.sent else []

    @property
    def before_text(self) -> str:
        """Return who has run it again before, or ""."""
        if self.before is None:
            return ""
        text = pgettext("systemtasks", "already run again by {}")
        return text.format(self.before.user)


@dataclass(slots=True)
class TaskItems:
    """The items of one task that are sent."""

    task: SystemTask
    items: list[Item] = field(default_factory=list)

    @property
    def queues(self) -> str:
        """Return the names of the queues."""
        names = {item.sent.queue or NOTHING for item in self.items if item.sent}
        return ", ".join(sorted(names))


@dataclass(slots=True)
class Plan:
    """Everything that is sent, and what cannot be."""

    items: list[Item]
    notes: list[str] = field(default_factory=list)
    """The reasons for which rows were left out, in sentences for the page."""

    @property
    def sendable(self) -> list[Item]:
        """Return what can be sent."""
        return [item for item in self.items if item.sent]

    @property
    def refused(self) -> list[Item]:
        """Return what cannot be sent."""
        return [item for item in self.items if not item.sent]

    @property
    def by_task(self) -> list[TaskItems]:
        """Return what can be sent, by task."""
        found: dict[Any, TaskItems] = {}
        for item in self.sendable:
            found.setdefault(item.task.pk, TaskItems(item.task)).items.append(item)
        return list(found.values())


def plan(rows: Iterable[SystemTask | TaskRun]) -> Plan:
    """Return what is sent for these rows. One message is sent once, whatever attempts it had."""
    rows = [*rows]
    items: list[Item] = []
    messages: set[Any] = set()
    for row in sorted(rows, key=_newest_attempt_first):
        message = (type(row), row.celery_id if isinstance(row, TaskRun) else row.pk)
        if message in messages:
            text = pgettext("systemtasks", "Another attempt of the same message is sent already.")
            items.append(Item(row, None, text))
            continue
        messages.add(message)
        try:
            sent = planned(row) if isinstance(row, SystemTask) else planned_run(row)
            check_record(sent)
        except NotRerunnableError as error:
            items.append(Item(row, None, str(error)))
        else:
            items.append(Item(row, sent))
    # A task is on record under the run whose message is sent.
    before = earlier(item.run or item.row.pk for item in items)
    return Plan([replace(item, before=before.get(item.run or item.row.pk)) for item in items])


def _newest_attempt_first(row: SystemTask | TaskRun) -> tuple[int, int]:
    return (-row.attempt, -row.number) if isinstance(row, TaskRun) else (0, 0)


def plan_of_error(run: TaskRun) -> Plan:
    """Return what is sent for the newest MOST failed runs with the error of this one.

    Those that have been run again, or that Celery has retried, are not sent.
    """
    group, bound = group_of(run)
    pks = group.runs if group else []
    again = RunAgain.objects.filter(run__in=pks).exclude(celery_id="")
    done = {*again.values_list("run", flat=True)}
    runs = TaskRun.objects.filter(pk__in=[pk for pk in pks if pk not in done])
    retried = runs.filter(state=State.RETRY).order_by().count()
    rest = runs.exclude(state=State.RETRY).select_related("system_task").defer(*UNREAD)
    shown = [*rest.newest_first()[:MOST]]
    found = plan(shown)
    left = len(pks) - len(done) - retried - len(shown)
    for text, number in (
        (pgettext("systemtasks", "Left out, since they have been run again: {}"), len(done)),
        (pgettext("systemtasks", "Left out, since Celery has retried them: {}"), retried),
        (pgettext("systemtasks", "More than are sent at a time, and left for the next: {}"), left),
    ):
        if number > 0:
            found.notes.append(text.format(number_text(number)))
    return found if not bound else Plan(found.items, [*found.notes, bound])


class RunAgainManyAdmin(RunAgainAdmin):
    """An admin in whose list several rows can be selected, to be run again."""

    @property
    def _many_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_run_again_many"

    def get_urls(self) -> list[Any]:
        # Each claim, and each run that was sent, is committed at once.
        @transaction.non_atomic_requests
        def many(request: HttpRequest) -> HttpResponseBase:
            return self.run_again_many_view(request)

        view = self.explaining(self.admin_site.admin_view(many))
        done = self.explaining(self.admin_site.admin_view(self.run_again_done_view))
        return [
            path("run-again/", view, name=self._many_name),
            path("run-again/<uuid:key>/", done, name=f"{self._many_name}_done"),
            *super().get_urls(),
        ]

    def select_url(self, request: HttpRequest) -> str:
        """Return the address that gets the selected rows, or "" if the user may not run any."""
        if not may_run_again(request):
            return ""
        return reverse(f"{self.admin_site.name}:{self._many_name}")

    def run_again_many_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show what would be sent, and send it if that is confirmed."""
        if not may_run_again(request) or not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._send_many(request)
        if "same_error" in request.GET and self.model is TaskRun:
            (pk,) = _uuids(request.GET.getlist("same_error")[-1:])
            run = TaskRun.objects.filter(pk=pk).defer(*UNREAD).first()
            if run is None:
                raise Http404
            found = plan_of_error(run)
        else:
            found = plan(self._rows(request.GET.getlist("row")))
        return self._ask_for_many(request, found)

    def _rows(self, texts: list[str]) -> list[SystemTask | TaskRun]:
        """Return the rows with these keys. Raise BadRequest if there are too many of them."""
        pks = _uuids(texts)
        if self.model is TaskRun:
            runs = TaskRun.objects.filter(pk__in=pks).select_related("system_task").defer(*UNREAD)
            return [*runs.newest_first()]
        return [*SystemTask.objects.filter(pk__in=pks).defer("messages").order_by("name", "uid")]

    def _ask_for_many(self, request: HttpRequest, found: Plan) -> HttpResponse:
        context = {
            "title": pgettext("systemtasks", "Run again"),
            "plan": found,
            "key": uuid4(),
            "shown": newest_claim(),
            "most": MOST,
            "may_view_arguments": request.user.has_perm("systemtasks.view_taskrun"),
        }
        return self._page(request, "run_again_many.html", context)

    def _page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        request.current_app = self.admin_site.name
        names = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}"
        whole = {
            **self.admin_site.each_context(request),
            "subtitle": None,
            "opts": self.opts,
            "list_url": reverse(f"{names}_changelist"),
            **context,
        }
        return with_unseen_shown_in(TemplateResponse(request, f"systemtasks/{template}", whole))

    def _send_many(self, request: HttpRequest) -> HttpResponse:
        """Send what the page has shown. What has its key is sent once, however often it is asked.

        Each row is claimed before it is sent, and its outcome is kept as soon as it is known, so
        that the next page can say what was sent, whatever happens in the middle.
        """
        (key,) = _uuids([request.POST.get("key", "")])
        runs = _uuids(request.POST.getlist("run"))
        tasks = _uuids(request.POST.getlist("task"))
        found = TaskRun.objects.filter(pk__in=runs).select_related("system_task").defer(*UNREAD)
        rows: list[SystemTask | TaskRun] = [*found.newest_first()]
        rows += SystemTask.objects.filter(pk__in=tasks).defer("messages")
        found_again = plan(rows)
        items = found_again.sendable
        if not items:
            return self._ask_for_many(request, found_again)
        user = request.user.get_username()
        with Sender(item.sent.name for item in items if item.sent) as sender:
            for item in items:
                self._send_one(request, sender, item, key, user)
        name = f"{self.admin_site.name}:{self._many_name}_done"
        return HttpResponseRedirect(reverse(name, args=[key]))

    def _send_one(
        self, request: HttpRequest, sender: Sender, item: Item, key: UUID, user: str
    ) -> None:
        if item.sent is None:
            return
        shown = request.POST.get("shown", "")
        row, is_sent_now = claim(key, item.run or item.row.pk, user, shown)
        if not is_sent_now:
            return
        # The log is in English: others read it, in other languages.
        try:
            row.celery_id = sender.send(item.sent, asked_by(user, item.sent))
            text = f"Run again, as {row.celery_id}."
        except RerunError as error:
            row.problem = str(error)
            may_be_sent = isinstance(error, BrokerAwayError) and not isinstance(
                error, NotTriedError
            )
            text = f"Run again: {error}" if may_be_sent else ""
        row.save(update_fields=["celery_id", "problem"])
        if text:
            self.log_change(request, item.task if self.model is SystemTask else item.row, text)

    def run_again_done_view(self, request: HttpRequest, key: UUID) -> HttpResponseBase:
        """Show what has been sent by the page with this key, and what has not, and why."""
        if not may_run_again(request) or not self.has_view_permission(request):
            raise PermissionDenied
        done = [*RunAgain.objects.filter(key=key).order_by("pk")]
        if not done:
            raise Http404
        sent = [one for one in done if one.celery_id]
        context = {
            "title": pgettext("systemtasks", "Run again"),
            "who": done[0].user,
            "when": ago(done[0].timestamp),
            "sent": sent,
            "failed": [one for one in done if one.problem],
            "open": [one for one in done if not one.celery_id and not one.problem],
            "count": number_text(len(sent)),
            "all": number_text(len(done)),
            "may_view_runs": request.user.has_perm("systemtasks.view_taskrun"),
            "is_of_runs": self.model is TaskRun,
        }
        return self._page(request, "run_again_done.html", context)


def _uuids(texts: list[str]) -> list[UUID]:
    """Return the ids. Raise BadRequest for a malformed one, and for more than MOST."""
    if len(texts) > MOST:
        text = pgettext("systemtasks", "At most {} are run again at a time.")
        raise BadRequest(text.format(MOST))
    try:
        return [UUID(text) for text in texts]
    except ValueError as error:
        text = pgettext("systemtasks", "An id in the address or the form is malformed.")
        raise BadRequest(text) from error
