"""What the OpenAPI document says beyond what drf-spectacular reads from the views."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from events.examples import EVERYWHERE, EXAMPLES, TO_A_GET, TO_A_TOKEN
from events.waiting import LONGEST

_TEXT = {"type": "string"}
_NUMBERS = ("next", "previous", "count", "current", "total_pages", "start_index", "end_index")

_POSITION = {name: {"type": "number"} for name in _NUMBERS}
_COUNT = "Exact up to 10,000, and above it an estimate; `next` is always right"
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
                "description": "What to send as `after` for the next page: it is found without "
                "reading those before it. Empty where there is none",
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
"""The components that no serializer stands for."""


def _answer(component: str, description: str) -> OpenApiResponse:
    return OpenApiResponse({"$ref": f"#/components/schemas/{component}"}, description)


INVALID = _answer("ValidationError", "A parameter is malformed")
NOT_RERUNNABLE = _answer(
    "ValidationError",
    "The uuid is malformed, no worker knows the task, or its arguments are not on record",
)
FORBIDDEN = _answer("GenericError", "No valid token, or no permission")
NOT_FOUND = _answer("GenericError", "No such task")
NO_SUCH_RUN = _answer("GenericError", "No such run")
NO_SUCH_PAGE = _answer("GenericError", "A page past the end")
REFUSED = {400: INVALID, 403: FORBIDDEN}
"""What may come back of every GET."""
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
    "id", OpenApiTypes.INT64, OpenApiParameter.PATH, description="The number of this run."
)
WAIT = OpenApiParameter(
    "wait",
    {"type": "integer", "minimum": 0, "maximum": LONGEST},
    description="Wait so many seconds for a run that has not ended to end; its answer comes as "
    "soon as it has. Where the server has too many waiting, it answers at once.",
)
ORDERING = OpenApiParameter(
    "ordering",
    str,
    description="Which field to use when ordering the results; descending, with - before it.",
)
"""Commas may stand between several, but clients know it as one text."""


class BearerScheme(OpenApiAuthenticationExtension):
    """BearerAuthentication, under the name that authentik's document has for it."""

    target_class = "events.authentication.BearerAuthentication"
    name = "authentik"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


_ANYWHERE = {
    "406": "The Accept header wants a format that there is not",
    "500": "Anything unforeseen",
}
_WITH_TOKEN = {"429": "The token has been used more often than it may be"}
_WITHOUT_TOKEN = {"404": "`format` names none that there is"}
_RETRY_AFTER = {"description": "Seconds until it may be used again", "schema": {"type": "integer"}}
_ETAG = {"description": "Stands for this very answer", "schema": _TEXT}


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
    """A postprocessing hook: what every operation has in common, and the examples.

    That is what can come back from each of them, and ETags.
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
        errors["412"] = "It is not what `If-Match` names"
        examples |= TO_A_GET
        answers["200"]["headers"] = {"ETag": _ETAG}
        answers["304"] = {"description": "What `If-None-Match` names has not changed"}
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
    """A postprocessing hook that adds COMPONENTS."""
    schemas = result["components"]["schemas"]
    result["components"]["schemas"] = dict(sorted({**schemas, **COMPONENTS}.items()))
    return result
