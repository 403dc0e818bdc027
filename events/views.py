"""The system-tasks endpoints, and the document that describes them.

The views name their parsers, renderers and so on themselves. So they keep the contract in any
project, whatever its REST_FRAMEWORK settings are.
"""

import re
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import F, QuerySet, Value
from django.http import Http404, HttpResponse
from django_filters.rest_framework.backends import DjangoFilterBackend
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ReadOnlyModelViewSet

from events import schema
from events.authentication import BearerAuthentication
from events.conditional import conditional
from events.errors import exception_handler
from events.filters import UUID_TEXT, SystemTaskFilter, TaskRunFilter
from events.headers import PAGE
from events.negotiation import Negotiation
from events.pagination import KeysetPagination, Pagination
from events.permissions import HasPermission
from events.prepared import prepared
from events.renderers import ORJSONRenderer
from events.serializers import (
    TASK_COLUMNS,
    SystemTaskSerializer,
    TaskRunSerializer,
    TaskSummarySerializer,
    with_json_texts,
)
from events.summary import SpanSerializer, summaries, turn, with_next_runs
from events.throttling import TokenThrottle
from events.waiting import LONGEST_WAIT, wait_for_end
from systemtasks.models import SystemTask, TaskRun
from systemtasks.rerun import BrokerAwayError, NotRerunnableError, rerun

TASKS = with_json_texts(SystemTask.objects.all(), *SystemTaskSerializer.json_columns)


@prepared
def read_task(uuid: Value) -> "QuerySet[Any, Any]":
    """Return the task with this uuid: its TASK_COLUMNS, and the text of its messages."""
    return TASKS.filter(uuid=uuid).order_by().values_list(*TASK_COLUMNS, "messages_text")


ExceptionHandler = Callable[[Exception, dict[str, Any]], HttpResponse]


class ContractView:
    """A view whose errors are those of the contract, and whose responses have ETags."""

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:  # noqa: ANN401
        """Return DRF's view function with ETags, decorated once and not for each request."""
        return conditional(super().as_view(*args, **initkwargs))  # type: ignore[misc]

    def get_exception_handler(self) -> ExceptionHandler:
        return exception_handler


class SchemaView(ContractView, SpectacularAPIView):
    """The OpenAPI document, which needs no token."""

    http_method_names = ("get", "head")

    @extend_schema(responses={200: OpenApiTypes.OBJECT})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401
        renderer: BaseRenderer = request.accepted_renderer
        with _making_document:
            document = _document(type(renderer), settings.ROOT_URLCONF)  # type: ignore[arg-type]  # the stubs' __hash__
        name = f"{spectacular_settings.TITLE}.{renderer.format}"
        charset = f"; charset={renderer.charset}" if renderer.charset else ""
        return HttpResponse(
            document,
            content_type=f"{renderer.media_type}{charset}",
            headers={"Content-Disposition": f'inline; filename="{name}"'},
        )


_making_document = Lock()


@cache
def _document(renderer: type[BaseRenderer], urlconf: str) -> bytes:
    """Return the OpenAPI document of these URLs. It is made once a process: it takes long."""
    generator: Any = SchemaView.generator_class(urlconf=urlconf)
    document: Any = renderer().render(generator.get_schema(public=True))
    return bytes(document)


class BrowserView(ContractView, SpectacularSwaggerSplitView):
    """The document as a Swagger UI page, with all files from this service and none from a CDN.

    The page has no script in it: it loads the one that this view gives with `?script`.
    """

    http_method_names = ("get", "head")
    url_self = "?"

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Return the page, or its script, without a CSRF token.

        Bearer authentication needs none, and a new one each time would change the ETag.
        """
        page: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        page.data["csrf_token"] = ""
        page.headers["Content-Security-Policy"] = PAGE
        return page


class Endpoint(ContractView, GenericViewSet[Any]):
    """The base of the endpoints that need a token."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (HasPermission,)
    parser_classes = (JSONParser,)
    renderer_classes = (ORJSONRenderer,)
    throttle_classes = (TokenThrottle,)
    content_negotiation_class = Negotiation
    filter_backends = (DjangoFilterBackend,)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate, and count the request for its token's rate, even if it is then refused."""
        super().perform_authentication(request)
        super().check_throttles(request)

    def check_throttles(self, request: Request) -> None:
        """Do nothing: DRF calls this after it has checked the permissions, which is too late."""


@extend_schema_view(
    list=extend_schema(
        parameters=[schema.ORDERING],
        responses={
            200: SystemTaskSerializer(many=True),
            **schema.REFUSED,
            404: schema.NO_SUCH_PAGE,
        },
    ),
    retrieve=extend_schema(
        parameters=[schema.UUID],
        responses={
            200: SystemTaskSerializer,
            **schema.REFUSED,
            404: schema.NOT_FOUND,
        },
    ),
)
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

        Raises ValidationError for a malformed uuid, and Http404 for an unknown one.
        """
        uuid: str = self.kwargs["uuid"]
        if not UUID_TEXT.fullmatch(uuid):
            raise ValidationError({"uuid": ["Must be a valid UUID."]})
        for *values, messages_text in read_task(uuid):
            task = SystemTask.from_db(TASKS.db, TASK_COLUMNS, values)
            task.messages_text = messages_text  # type: ignore[attr-defined]
            return task
        raise Http404

    @extend_schema(
        parameters=[schema.UUID],
        request=None,
        responses={
            204: None,
            400: schema.NOT_RERUNNABLE,
            403: schema.FORBIDDEN,
            404: schema.NOT_FOUND,
            500: schema.NOT_ENQUEUED,
        },
    )
    @action(detail=True, methods=["post"], permission_required="systemtasks.run_systemtask")
    def run(self, request: Request, uuid: str) -> Response:
        """Send the task again, with the arguments and to the queue of its last run."""
        try:
            rerun(self.get_object())
        except NotRerunnableError as error:
            raise ValidationError({"non_field_errors": [str(error)]}) from error
        except BrokerAwayError as error:
            raise APIException(str(error)) from error
        return Response(status=204)


@extend_schema_view(
    list=extend_schema(
        responses={
            200: TaskRunSerializer(many=True),
            **schema.REFUSED,
            404: schema.NO_SUCH_PAGE,
        },
    ),
    retrieve=extend_schema(
        parameters=[schema.RUN_ID, schema.WAIT],
        responses={
            200: TaskRunSerializer,
            **schema.REFUSED,
            404: schema.NO_SUCH_RUN,
        },
    ),
)
class TaskRunViewSet(Endpoint, ReadOnlyModelViewSet[TaskRun]):
    """Each execution of each task, those that are queued or running included"""  # noqa: D400, D415

    pagination_class = KeysetPagination
    queryset = with_json_texts(
        TaskRun.objects.newest_first(), *TaskRunSerializer.json_columns
    ).annotate(task_name=F("system_task__name"), task_uid=F("system_task__uid"))
    serializer_class = TaskRunSerializer
    filterset_class = TaskRunFilter
    permission_required: ClassVar[str] = "systemtasks.view_taskrun"

    def get_object(self) -> TaskRun:
        """Return the run that the path names; with `wait`, wait for its end first.

        Raises ValidationError for a malformed id or `wait`, and Http404 for an unknown id.
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

        The request is not counted a second time. Raises what DRF raises for a refused request.
        """
        request = self.initialize_request(self.request._request, *self.args, **self.kwargs)
        self.check_permissions(request)

    @extend_schema(
        parameters=[SpanSerializer],
        filters=False,
        responses={
            200: TaskSummarySerializer(many=True),
            **schema.REFUSED,
            404: schema.NO_SUCH_PAGE,
        },
    )
    @action(detail=False, pagination_class=Pagination, filter_backends=())
    def summary(self, request: Request) -> Response:
        """Summarise each task's runs in a span of time, in the order of the tasks' names"""  # noqa: D400, D415
        found = summaries(request)
        with turn():
            rows = list(found)
        page: Any = self.paginate_queryset(rows)
        serializer: Any = TaskSummarySerializer(with_next_runs(page), many=True)  # type: ignore[arg-type]
        return self.get_paginated_response(serializer.data)
