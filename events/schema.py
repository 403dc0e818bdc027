"""Complete the OpenAPI document with what drf-spectacular cannot read from the views."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from events.examples import EVERYWHERE, EXAMPLES, TO_A_GET, TO_A_TOKEN
from events.waiting import LONGEST_WAIT

_TEXT = {"type": "string"}
_NUMBERS = ("next", "previous", "count", "current", "total_pages", "start_index", "end_index")

_POSITION = {name: {"type": "number"} for name in _NUMBERS}
_COUNT = "Exact up to 10,000, and an estimate above it; `next` is always exact"
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
    "The uuid is malformed, no worker knows the task, or its arguments are not on record",
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

    target_class = "events.authentication.BearerAuthentication"
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
