"""The system-tasks endpoints, and the document that describes them.

The descriptions of the views are in `schema.py`, which is not used to serve the document.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from django.apps import apps
from django.db import DatabaseError, transaction
from django.db.models import OuterRef, QuerySet, Subquery, Value
from django.http import Http404
from django.urls import reverse
from django_filters.rest_framework.backends import DjangoFilterBackend
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.renderers import TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ReadOnlyModelViewSet

from systemtasks.models import SystemTask, TaskRun
from systemtasks.rerun import BrokerAwayError, NotRerunnableError, rerun, rerun_run

from .authentication import BearerAuthentication
from .document import JSONRenderer, PlainJSONRenderer, PlainYAMLRenderer, YAMLRenderer
from .filters import UUID_TEXT, SystemTaskFilter, TaskRunFilter
from .headers import PAGE
from .pagination import KeysetPagination, Pagination
from .permissions import HasPermission
from .policies import ContractView
from .prepared import prepared
from .serializers import (
    TASK_COLUMNS,
    SystemTaskSerializer,
    TaskRunSerializer,
    TaskSummarySerializer,
    with_json_texts,
)
from .summary import span_of, turn, with_next_runs
from .throttling import TokenThrottle
from .waiting import LONGEST_WAIT, wait_for_end

logger = logging.getLogger(__name__)

T = TypeVar("T")

TASKS = with_json_texts(SystemTask.objects.all(), *SystemTaskSerializer.json_columns)


def _of_task(column: str) -> Subquery:
    """Return an expression for a column of a run's task, which is read for the rows of a page only.

    With a join, Postgres would join the rows that it counts, and plan the join of each partition.
    """
    task = SystemTask.objects.filter(uuid=OuterRef("system_task_id")).order_by()
    return Subquery(task.values(column))


@prepared
def read_task(uuid: Value) -> "QuerySet[Any, Any]":
    """Return the task with this uuid: its TASK_COLUMNS, and the text of its messages."""
    return TASKS.filter(uuid=uuid).order_by().values_list(*TASK_COLUMNS, "messages_text")


class SchemaView(ContractView, APIView):
    """The OpenAPI document, which needs no token."""

    renderer_classes = (YAMLRenderer, PlainYAMLRenderer, JSONRenderer, PlainJSONRenderer)
    http_method_names = ("get", "head")

    def get(self, request: Request) -> Response:
        """Return the document, with the URL under which the project has mounted the API."""
        suffix = request.accepted_renderer.format
        headers = {"Content-Disposition": f'inline; filename="System Tasks.{suffix}"'}
        return Response(document_url(request).removesuffix("/schema/"), headers=headers)


class BrowserView(ContractView, APIView):
    """The document as a Swagger UI page, with all files from this service and none from a CDN."""

    renderer_classes = (TemplateHTMLRenderer,)
    http_method_names = ("get", "head")

    def get(self, request: Request) -> Response:
        """Return the page."""
        context = {"document": document_url(request)}
        headers = {"Content-Security-Policy": PAGE}
        return Response(context, template_name="systemtasks_api/browser.html", headers=headers)


def document_url(request: Request) -> str:
    """Return the URL of the OpenAPI document, in the namespace of the request's view."""
    match: Any = request.resolver_match
    return reverse(f"{match.namespace}:schema")


class Endpoint(ContractView, GenericViewSet[Any]):
    """The base of the endpoints that need a token."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (HasPermission,)
    throttle_classes = (TokenThrottle,)
    filter_backends = (DjangoFilterBackend,)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate, and count the request for its token's rate, even if it is then refused."""
        super().perform_authentication(request)
        super().check_throttles(request)

    def check_throttles(self, request: Request) -> None:
        """Do nothing: DRF calls this after it has checked the permissions, which is too late."""


def sent_again(send: Callable[[T, str], str], what: T, user: Any) -> Response:  # noqa: ANN401
    """Send a task or a run again, and note who asked in the record and in the log of the admin.

    Return the response, or raise the error of the contract.
    """
    try:
        celery_id = send(what, user.get_username())
    except NotRerunnableError as error:
        raise ValidationError({"non_field_errors": [str(error)]}) from error
    except BrokerAwayError as error:
        note_in_admin(user, what, f"Run again by the API: {error}")  # it may have been sent
        raise APIException(str(error)) from error
    note_in_admin(user, what, f"Run again by the API, as {celery_id}.")
    return Response(status=204)


def note_in_admin(user: Any, row: Any, text: str) -> None:  # noqa: ANN401 - the project's own user
    """Add a line to the history of a row in Django's admin, in projects that have it.

    What was sent is sent: a failure here, as over a replica, is logged, and reaches no client.
    """
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry

    try:
        with transaction.atomic(using=LogEntry.objects.db):
            LogEntry.objects.log_actions(user.pk, [row], CHANGE, text, single_object=True)
    except DatabaseError as error:
        logger.warning("This is not in the log of the admin: %s (%s)", text, error)


class SystemTaskViewSet(Endpoint, ReadOnlyModelViewSet[SystemTask]):
    """Read-only view set that returns all background tasks"""  # noqa: D400, D415 - authentik's

    pagination_class = Pagination
    queryset = TASKS.order_by("name", "uid", "status")  # as authentik's
    serializer_class = SystemTaskSerializer
    filterset_class = SystemTaskFilter
    lookup_field = "uuid"
    permission_required: ClassVar[str] = "systemtasks.view_systemtask"

    def get_object(self) -> SystemTask:
        """Return the task that the path names.

        Raise ValidationError for a malformed uuid, and Http404 for an unknown one.
        """
        uuid: str = self.kwargs["uuid"]
        if not UUID_TEXT.fullmatch(uuid):
            raise ValidationError({"uuid": ["Must be a valid UUID."]})
        for *values, messages_text in read_task(uuid):
            task = SystemTask.from_db(TASKS.db, TASK_COLUMNS, values)
            task.messages_text = messages_text  # type: ignore[attr-defined]
            return task
        raise Http404

    @action(detail=True, methods=["post"], permission_required="systemtasks.run_systemtask")
    def run(self, request: Request, uuid: str) -> Response:
        """Send the task again, as its last run was sent."""
        return sent_again(rerun, self.get_object(), request.user)


class TaskRunViewSet(Endpoint, ReadOnlyModelViewSet[TaskRun]):
    """Each execution of each task, those that are queued or running included"""  # noqa: D400, D415

    pagination_class = KeysetPagination
    queryset = with_json_texts(
        TaskRun.objects.newest_first().defer("sent_options"), *TaskRunSerializer.json_columns
    ).annotate(task_name=_of_task("name"), task_uid=_of_task("uid"))
    serializer_class = TaskRunSerializer
    filterset_class = TaskRunFilter
    permission_required: ClassVar[str] = "systemtasks.view_taskrun"

    def get_object(self) -> TaskRun:
        """Return the run that the path names; with `wait`, wait for its end first.

        Raise ValidationError for a malformed id or `wait`, and Http404 for an unknown id.
        """
        run_id, wait = self.kwargs["pk"], self.request.query_params.get("wait")
        if not UUID_TEXT.fullmatch(run_id):
            raise ValidationError({"id": ["Must be a valid UUID."]})
        if wait is not None:
            if not re.fullmatch("[0-9]{1,2}", wait, re.ASCII) or int(wait) > LONGEST_WAIT:
                raise ValidationError({"wait": [f"Must be from 0 to {LONGEST_WAIT} seconds."]})
            if self.request.method == "GET":  # a HEAD does not wait: it wants no content
                wait_for_end(run_id, int(wait))
                self.check_access_again()
        run: TaskRun | None = self.get_queryset().filter(pk=run_id).order_by().first()
        if run is None:
            raise Http404
        return run

    def check_access_again(self) -> None:
        """Authenticate again, and check the permissions: both may have changed during the wait.

        The request is not counted a second time. Let DRF's exception for a refused request
        propagate.
        """
        request = self.initialize_request(self.request._request, *self.args, **self.kwargs)
        self.check_permissions(request)

    @action(detail=True, methods=["post"], permission_required="systemtasks.run_systemtask")
    def run(self, request: Request, pk: str) -> Response:
        """Send this run again, with its own arguments"""  # noqa: D400, D415
        return sent_again(rerun_run, self.get_object(), request.user)

    @action(detail=False, pagination_class=Pagination, filter_backends=())
    def summary(self, request: Request) -> Response:
        """Summarise each task's runs in a span of time, in the order of the tasks' names"""  # noqa: D400, D415
        span = span_of(request)
        paginator: Any = self.paginator
        paginator.read(request)  # a malformed page is refused before the summary is made
        with turn():
            page: Any = self.paginate_queryset(span.tasks())
            rows = span.summaries(page)
        serializer: Any = TaskSummarySerializer(with_next_runs(rows), many=True)  # type: ignore[arg-type]
        return self.get_paginated_response(serializer.data)
