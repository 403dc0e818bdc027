"""Do only what a view set must: read the token, the permissions of its user, and the row.

The view ignores what it reads, and every response is the same. The service does more than this, so
it cannot be faster.
"""

from django.urls import path
from knox.settings import CONSTANTS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from benchmarks.serving.rows import MESSAGES
from events.authentication import read_tokens
from events.negotiation import Negotiation
from events.renderers import ORJSONRenderer
from events.views import read_task
from systemtasks.models import SystemTask

BEGINNING = len("Bearer ")
ANSWER = {"name": "app.tasks.sync", "status": "successful", "messages": MESSAGES}


class SystemTaskViewSet(ReadOnlyModelViewSet[SystemTask]):
    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (ORJSONRenderer,)
    content_negotiation_class = Negotiation

    def retrieve(self, request: Request, uuid: str) -> Response:
        token = request.META["HTTP_AUTHORIZATION"][BEGINNING:]
        read_tokens(token[: CONSTANTS.TOKEN_KEY_LENGTH])
        read_task(uuid)
        return Response(ANSWER)


urlpatterns = [
    path("api/v3/events/system_tasks/<uuid>/", SystemTaskViewSet.as_view({"get": "retrieve"}))
]
