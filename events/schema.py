"""Make the OpenAPI document of the views with drf-spectacular, for `make openapi`.

Serving the API uses neither this module nor drf-spectacular: see `document.py`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.urls import include, path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import _load_enum_name_overrides
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.settings import patched_settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from systemtasks.states import State, Status

from .authentication import BearerAuthentication
from .document import SERVER
from .examples import EVERYWHERE, EXAMPLES, TO_A_GET, TO_A_TOKEN
from .serializers import (
    LogLevel,
    SystemTaskSerializer,
    TaskRunSerializer,
    TaskSummarySerializer,
)
from .summary import SpanSerializer
from .urls import urlpatterns
from .views import SchemaView, SystemTaskViewSet, TaskRunViewSet
from .waiting import LONGEST_WAIT

_TEXT = {"type": "string"}
_NUMBERS = ("next", "previous", "count", "current", "total_pages", "start_index", "end_index")

_POSITION = {name: {"type": "number"} for name in _NUMBERS}
_COUNT = "Exact up to 10,000; an estimate above it, or in a search of runs. `next` is always exact"
_POSITION["count"]["description"] = _COUNT

COMPONENTS: dict[str, dict[str, Any]] = {
    "Pagination": {
        "type": "object",
        "properties": _POSITION,
        "required": sorted(_NUMBERS),
    },
    "RunPagination": {
        "type": "object",
        "properties": {
            **_POSITION,
            "after": {
                "type": "string",
                "description": "Send it as `after` to get the next page, which is found without "
                "reading those before it. Empty if there is no next page",
            },
        },
        "required": sorted([*_NUMBERS, "after"]),
    },
    "ValidationError": {
        "type": "object",
        "properties": {"non_field_errors": {"type": "array", "items": _TEXT}, "code": _TEXT},
        "additionalProperties": {},
    },
    "GenericError": {
        "type": "object",
        "properties": {"detail": _TEXT, "code": _TEXT},
        "required": ["detail"],
    },
}
"""The components that have no serializer."""


def _answer(component: str, description: str) -> OpenApiResponse:
    return OpenApiResponse({"$ref": f"#/components/schemas/{component}"}, description)


INVALID = _answer("ValidationError", "A parameter is malformed")
NOT_RERUNNABLE = _answer(
    "ValidationError",
    "The id is malformed, no worker knows the task, or what its message carried is not on record",
)
FORBIDDEN = _answer("GenericError", "No valid token, or no permission")
NOT_FOUND = _answer("GenericError", "No such task")
NO_SUCH_RUN = _answer("GenericError", "No such run")
NO_SUCH_PAGE = _answer("GenericError", "A page past the end")
REFUSED = {400: INVALID, 403: FORBIDDEN}
"""The errors that every GET may respond with."""
NOT_ENQUEUED = _answer(
    "GenericError",
    "The task was not enqueued, or it is not known whether it was; the text says which",
)

UUID = OpenApiParameter(
    "uuid",
    OpenApiTypes.UUID,
    OpenApiParameter.PATH,
    description="A UUID string identifying this System Task.",
)
RUN_ID = OpenApiParameter(
    "id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The UUID of this run."
)
WAIT = OpenApiParameter(
    "wait",
    {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
    description="Wait up to this many seconds for the run to end. The response is sent as soon as "
    "it has ended, and at once if too many requests wait already.",
)
ORDERING = OpenApiParameter(
    "ordering",
    str,
    description="Which field to use when ordering the results; descending, with - before it.",
)
"""One text for the clients, though it may name several fields with commas between them."""


class BearerScheme(OpenApiAuthenticationExtension):
    """Describes BearerAuthentication under the name that it has in authentik's document."""

    target_class = BearerAuthentication
    name = "authentik"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


_ANYWHERE = {
    "406": "None of the formats in the Accept header is available",
    "500": "Unforeseen error",
}
_WITH_TOKEN = {"429": "The token was used more often than it allows"}
_WITHOUT_TOKEN = {"404": "The `format` does not exist"}
_RETRY_AFTER = {
    "description": "Seconds until the token may be used again",
    "schema": {"type": "integer"},
}
_ETAG = {"description": "Changes whenever the content does", "schema": _TEXT}


DESCRIPTIONS: dict[type, dict[str, Callable[[Any], Any]]] = {
    SystemTaskViewSet: {
        "list": extend_schema(
            parameters=[ORDERING],
            responses={200: SystemTaskSerializer(many=True), **REFUSED, 404: NO_SUCH_PAGE},
        ),
        "retrieve": extend_schema(
            parameters=[UUID],
            responses={200: SystemTaskSerializer, **REFUSED, 404: NOT_FOUND},
        ),
        "run": extend_schema(
            parameters=[UUID],
            request=None,
            responses={
                204: None,
                400: NOT_RERUNNABLE,
                403: FORBIDDEN,
                404: NOT_FOUND,
                500: NOT_ENQUEUED,
            },
        ),
    },
    TaskRunViewSet: {
        "list": extend_schema(
            responses={200: TaskRunSerializer(many=True), **REFUSED, 404: NO_SUCH_PAGE},
        ),
        "retrieve": extend_schema(
            parameters=[RUN_ID, WAIT],
            responses={200: TaskRunSerializer, **REFUSED, 404: NO_SUCH_RUN},
        ),
        "run": extend_schema(
            parameters=[RUN_ID],
            request=None,
            responses={
                204: None,
                400: NOT_RERUNNABLE,
                403: FORBIDDEN,
                404: NO_SUCH_RUN,
                500: NOT_ENQUEUED,
            },
        ),
        "summary": extend_schema(
            parameters=[SpanSerializer],
            filters=False,
            responses={200: TaskSummarySerializer(many=True), **REFUSED, 404: NO_SUCH_PAGE},
        ),
    },
    SchemaView: {
        "get": extend_schema(description=SchemaView.__doc__, responses={200: OpenApiTypes.OBJECT}),
    },
}
"""The descriptions of views, by view and method. No other view is described."""


class Enumerator(EndpointEnumerator):
    """Finds the endpoints of DESCRIPTIONS, which have no schema class of their own."""

    def should_include_endpoint(self, path: str, callback: Any) -> bool:  # noqa: ANN401
        return getattr(callback, "cls", None) in DESCRIPTIONS

    def get_api_endpoints(self, patterns: Any = None, prefix: str = "") -> Any:  # noqa: ANN401
        """Return the endpoints, each with a view that has a schema class and its descriptions."""
        endpoints: Any = super().get_api_endpoints(patterns, prefix)  # type: ignore[no-untyped-call]
        return [(*endpoint, _described(callback)) for *endpoint, callback in endpoints]


class Generator(SchemaGenerator):
    endpoint_inspector_cls = Enumerator


def _described(callback: Any) -> Any:  # noqa: ANN401 - what DRF's as_view() returns
    """Return the same view with the schema class of drf-spectacular and its descriptions."""
    view = callback.cls
    methods = {
        name: describe(_with_schema(getattr(view, name)))
        for name, describe in DESCRIPTIONS[view].items()
    }
    described: Any = type(
        view.__name__, (view,), {"__doc__": view.__doc__, "schema": AutoSchema(), **methods}
    )
    actions = [callback.actions] if hasattr(callback, "actions") else []
    return described.as_view(*actions, **callback.initkwargs)


def _with_schema(method: Any) -> Any:  # noqa: ANN401 - a method, with DRF's attributes
    """Return a copy of the method for `extend_schema`, which otherwise asks the settings."""

    @wraps(method)
    def copy(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method
        return method(*args, **kwargs)

    copied: Any = copy
    copied.kwargs = {**getattr(method, "kwargs", {}), "schema": AutoSchema}
    return copied


def document() -> str:
    """Return the OpenAPI document of the views as YAML."""
    settings = {
        "TITLE": "System Tasks",
        "DESCRIPTION": "Outcomes of Celery tasks, in the format of authentik's system-tasks API.",
        "VERSION": "2024.6",
        "SERVERS": [{"url": SERVER}],
        "SCHEMA_PATH_PREFIX": SERVER,
        "SCHEMA_PATH_PREFIX_TRIM": True,
        "POSTPROCESSING_HOOKS": [
            "drf_spectacular.hooks.postprocess_schema_enums",
            f"{__name__}.add_components",
            f"{__name__}.complete",
        ],
        "ENUM_NAME_OVERRIDES": {
            "SystemTaskStatusEnum": Status.choices,
            "LogLevelEnum": LogLevel.choices,
            "TaskRunStateEnum": State.choices,
        },
        "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    }
    _load_enum_name_overrides.cache_clear()  # it may be that of other settings
    with patched_settings(settings):
        generator: Any = Generator(  # type: ignore[no-untyped-call]
            patterns=[path(f"{SERVER[1:]}/", include(urlpatterns))]
        )
        result = generator.get_schema(public=True)
    text: bytes = OpenApiYamlRenderer().render(result)
    return text.decode()


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
    """Add the common errors, the ETags and the examples to every operation.

    A postprocessing hook for drf-spectacular.
    """
    for methods in result["paths"].values():
        for method, operation in methods.items():
            if operation.get("operationId") in EXAMPLES:
                operation["responses"] = _completed(method, operation)
    return result


def _completed(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = operation["responses"]
    errors, examples = dict(_ANYWHERE), {**EVERYWHERE, **EXAMPLES[operation["operationId"]]}
    if {} in operation["security"]:
        errors |= _WITHOUT_TOKEN
    else:
        errors |= _WITH_TOKEN
        examples = {**TO_A_TOKEN, **examples}
    if method == "get":
        errors["412"] = "The content is not the one that `If-Match` names"
        examples |= TO_A_GET
        answers["200"]["headers"] = {"ETag": _ETAG}
        answers["304"] = {"description": "The content is the one that `If-None-Match` names"}
    for status, description in errors.items():
        error = {"schema": {"$ref": "#/components/schemas/GenericError"}}
        new = {"content": {"application/json": error}, "description": description}
        answers.setdefault(status, new)
    if "429" in answers:
        answers["429"]["headers"] = {"Retry-After": _RETRY_AFTER}
    for status, example in examples.items():
        answers[status]["content"]["application/json"]["example"] = example
    return dict(sorted(answers.items()))


def add_components(result: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
    """Add COMPONENTS to the document; a postprocessing hook for drf-spectacular."""
    schemas = result["components"]["schemas"]
    result["components"]["schemas"] = dict(sorted({**schemas, **COMPONENTS}.items()))
    return result
