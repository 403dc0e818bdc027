"""The least that a view set must do: ask for the token, its user's permissions and the row.

It looks at none of them, and answers the same to everybody. What the service does beyond that makes
it slower than this, and nothing can make it faster.
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
