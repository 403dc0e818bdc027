"""The system-tasks endpoints, and the document that describes them.

They name their classes themselves, so that they keep the contract in any project, whatever its
REST_FRAMEWORK settings say for its own views.
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar

from django.http import Http404, HttpResponse
from django_filters.rest_framework.backends import DjangoFilterBackend
from drf_spectacular.utils import extend_schema, extend_schema_view
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from events import schema
from events.authentication import BearerAuthentication
from events.errors import exception_handler
from events.filters import SystemTaskFilter
from events.pagination import Pagination
from events.permissions import HasPermission
from events.renderers import ORJSONRenderer
from events.serializers import SystemTaskSerializer, with_messages_text
from events.statements import Statement
from systemtasks.models import SystemTask
from systemtasks.rerun import BrokerAwayError, NotRerunnableError, rerun

# RFC 9562's text form; Python's UUID() takes several others.
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


TASK_COLUMNS = [
    field.attname for field in SystemTask._meta.concrete_fields if field.name != "messages"
]
TASK = Statement(
    lambda uuid: (
        with_messages_text(SystemTask.objects.filter(uuid=uuid))
        .order_by()
        .values_list(*TASK_COLUMNS, "messages_text")
    )
)

ExceptionHandler = Callable[[Exception, dict[str, Any]], HttpResponse]


class ContractErrors:
    """A view whose errors have the bodies of the contract."""

    def get_exception_handler(self) -> ExceptionHandler:
        return exception_handler


class SchemaView(ContractErrors, SpectacularAPIView):
    """The OpenAPI document, for everyone."""


class BrowserView(ContractErrors, SpectacularSwaggerView):
    """The same as a page to read and to try; its files come from the sidecar, not from a CDN."""


@extend_schema_view(
    list=extend_schema(
        parameters=[schema.ORDERING],
        responses={
            200: SystemTaskSerializer(many=True),
            400: schema.INVALID,
            403: schema.FORBIDDEN,
            404: schema.NO_SUCH_PAGE,
        },
    ),
    retrieve=extend_schema(
        parameters=[schema.UUID],
        responses={
            200: SystemTaskSerializer,
            400: schema.INVALID,
            403: schema.FORBIDDEN,
            404: schema.NOT_FOUND,
        },
    ),
)
class SystemTaskViewSet(ContractErrors, ReadOnlyModelViewSet[SystemTask]):
    """Read-only view set that returns all background tasks"""  # noqa: D400, D415 - authentik's

    authentication_classes = (BearerAuthentication,)
    permission_classes = (HasPermission,)
    parser_classes = (JSONParser,)
    renderer_classes = (ORJSONRenderer,)
    pagination_class = Pagination
    filter_backends = (DjangoFilterBackend,)
    queryset = with_messages_text(SystemTask.objects.all())
    serializer_class = SystemTaskSerializer
    filterset_class = SystemTaskFilter
    lookup_field = "uuid"
    permission_required: ClassVar[str] = "systemtasks.view_systemtask"

    def get_object(self) -> SystemTask:
        """The task in the path; raises ValidationError for a malformed uuid, Http404 for another.

        DRF comes here only once the caller may ask.
        """
        uuid = self.kwargs["uuid"]
        if not UUID_TEXT.fullmatch(uuid):
            raise ValidationError({"uuid": ["Must be a valid UUID."]})
        if not (rows := TASK.fetch(uuid)):
            raise Http404
        *values, messages_text = rows[0]
        task: Any = SystemTask.from_db(TASK.alias, TASK_COLUMNS, values)
        task.messages_text = messages_text
        found: SystemTask = task
        return found

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
        """Send the task anew, with the arguments and to the queue of its last run."""
        try:
            rerun(self.get_object())
        except NotRerunnableError as error:
            raise ValidationError({"non_field_errors": [str(error)]}) from error
        except BrokerAwayError as error:
            raise APIException(str(error)) from error
        return Response(status=204)
