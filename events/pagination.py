"""The pages of a list, as authentik numbers them."""

import json
import re
from hashlib import sha256
from typing import Any, ClassVar

from django.core.signing import BadSignature, Signer
from django.db import connections
from django.db.models import Q
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

COUNT_LIMIT = 10_000
"""Up to how many rows are counted one by one; of more, Postgres's planner knows about how many."""

LAST_ROW = 2**63 - 1  # what Postgres takes as an OFFSET

WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
"""What a number of a query looks like; Python's int() takes `1_0` and other scripts' digits too."""

_positive = serializers.IntegerField(min_value=1)

Rows = Any  # a queryset, or where it says so a list


class Pagination(BasePagination):
    """`?page=` and `?page_size=`, and a body that tells where the page stands, in numbers.

    After authentik's `authentik.api.pagination.Pagination`, but what is not a positive number is
    refused with 400. `next` is always right; `count` is an estimate above COUNT_LIMIT.
    """

    page_size = 20
    max_page_size = 100
    component: ClassVar = "Pagination"

    def paginate_queryset(
        self, queryset: Rows, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """The rows of the page asked for; raises ValidationError, or NotFound past the end."""
        # More than the most is the most.
        self.size = min(_number(request, "page_size", self.page_size), self.max_page_size)
        self.number = self.page_number(request)
        self.start = (self.number - 1) * self.size
        counted = count(queryset)
        rows = self.rows_from_start(queryset)
        if not rows and self.start:
            raise NotFound("Invalid page.")
        self.has_next = len(rows) > self.size
        self.rows = rows[: self.size]
        seen = self.start + len(rows)
        self.count = max(counted, seen) if self.has_next else seen
        return self.rows

    def page_number(self, request: Request) -> int:
        """Which page was asked for, from 1."""
        return _number(request, "page", 1)

    def rows_from_start(self, queryset: Rows) -> list[Any]:
        """The page's rows, and one more where there is a next page."""
        if self.start > LAST_ROW - self.size:
            return []
        return list(queryset[self.start : self.start + self.size + 1])

    def position(self) -> dict[str, Any]:
        """Where the page stands; 0 stands for no next or previous page."""
        return {
            "next": self.number + 1 if self.has_next else 0,
            "previous": self.number - 1,
            "count": self.count,
            "current": self.number,
            "total_pages": max(-(-self.count // self.size), 1),
            "start_index": self.start + 1 if self.rows else 0,
            "end_index": self.start + len(self.rows),
        }

    def get_paginated_response(self, data: Any) -> Response:  # noqa: ANN401 - serialized rows
        """Return the page, where it stands, and an empty `autocomplete`.

        Clients of authentik 2025.6.2 and later require that key. The schema leaves it out, as the
        wire format of 2024.6 does.
        """
        return Response({"pagination": self.position(), "results": data, "autocomplete": {}})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The OpenAPI schema of such a page."""
        return {
            "type": "object",
            "properties": {
                "pagination": {"$ref": f"#/components/schemas/{self.component}"},
                "results": schema,
            },
            "required": ["pagination", "results"],
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """The OpenAPI parameters of such a list."""
        return [
            _parameter("page", "A page number within the paginated result set."),
            _parameter("page_size", "Number of results to return per page."),
        ]


class KeysetPagination(Pagination):
    """The same, and `?after=`, which goes on after the last row of a page, however far that is.

    Postgres reads the rows before a page that is asked for by its number, but none before one that
    is asked for by `after`. The rows must be ordered by one column and then by `id`. An `after`
    belongs to a query, its page size included; with another one it is refused with 400.
    """

    component: ClassVar = "RunPagination"

    def paginate_queryset(
        self, queryset: Rows, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """The rows of the page asked for; raises ValidationError, or NotFound past the end."""
        self.order = str(queryset.query.order_by[0])
        filters: Any = getattr(view, "filterset_class", None)
        self.filters = filters.base_filters if filters else ()
        self.after: tuple[Any, int] | None = None
        return super().paginate_queryset(queryset, request, view)

    def page_number(self, request: Request) -> int:
        """Which page was asked for, from 1; that of `after` is in it."""
        self.query = self.digest(request)
        if (cursor := request.query_params.get("after")) is None:
            return super().page_number(request)
        number, *self.after = _decoded(cursor, self.query)  # type: ignore[assignment]
        return number

    def digest(self, request: Request) -> str:
        """What stands for the query whose page this is."""
        given = {name: request.query_params.get(name) for name in self.filters}
        given["ordering"] = self.order  # whether it was asked for or not
        query = [self.size, sorted((name, text) for name, text in given.items() if text)]
        return sha256(json.dumps(query).encode()).hexdigest()[:16]

    def rows_from_start(self, queryset: Rows) -> list[Any]:
        """The page's rows, and one more where there is a next page."""
        if self.after is None:
            return super().rows_from_start(queryset)
        rows: list[Any] = []
        for part in _parts(queryset, self.order, *self.after):
            rows += part[: self.size + 1 - len(rows)]
            if len(rows) > self.size:
                break
        return rows

    def position(self) -> dict[str, Any]:
        """Where the page stands, and `after` for the next one, or an empty text."""
        after = ""
        if self.has_next:
            last = self.rows[-1]
            value = getattr(last, self.order.removeprefix("-"))
            text = value.isoformat() if hasattr(value, "isoformat") else value
            after = _encoded([self.number + 1, self.query, text, last.pk])
        return {**super().position(), "after": after}

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """The OpenAPI parameters of such a list."""
        after = {
            **_parameter("after", "`pagination.after` of a page: the page that follows it."),
            "schema": {"type": "string"},
        }
        return sorted(
            [*super().get_schema_operation_parameters(view), after], key=lambda each: each["name"]
        )


def count(rows: Rows) -> int:
    """How many rows there are: exactly up to COUNT_LIMIT, and above it about."""
    if isinstance(rows, list):
        return len(rows)
    if not rows.query.where:
        return _count_all(rows)
    keys = rows.order_by().values("pk")
    counted: int = keys[: COUNT_LIMIT + 1].count()
    if counted <= COUNT_LIMIT:
        return counted
    [plan] = json.loads(keys.explain(format="json"))
    return max(counted, int(plan["Plan"]["Plan Rows"]))


def _count_all(rows: Rows) -> int:
    """How many rows the table has, as `count` tells it."""
    connection: Any = connections[rows.db]
    table = connection.ops.quote_name(rows.model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT CASE WHEN reltuples > %s THEN reltuples::bigint "  # noqa: S608 - our own table
            f"ELSE (SELECT count(*) FROM {table}) END FROM pg_class WHERE oid = %s::regclass",
            [COUNT_LIMIT, table],
        )
        [(counted,)] = cursor.fetchall()
    return int(counted)


def _parts(rows: Rows, order: str, value: object, key: int) -> list[Rows]:
    """The rows that come after one, in parts that one range of an index holds each.

    Postgres has NULL above every value.
    """
    column = order.removeprefix("-")
    step = "lt" if order.startswith("-") else "gt"
    later = Q(**{f"id__{step}": key})
    if column == "id":
        return [rows.filter(later)]
    null = Q(**{f"{column}__isnull": True})
    if value is None:
        return [rows.filter(null & later), *([rows.filter(~null)] if step == "lt" else ())]
    further = Q(**{f"{column}__{step}e": value}) & (Q(**{f"{column}__{step}": value}) | later)
    return [rows.filter(further), *([rows.filter(null)] if step == "gt" else ())]


def _signer() -> Signer:
    return Signer(salt="events.pagination", sep=".")


def _encoded(cursor: list[Any]) -> str:
    return _signer().sign_object(cursor)


def _decoded(cursor: str, query: str) -> tuple[int, Any, int]:
    """The page's number, and the value and the id of the row before it; raises ValidationError.

    The signature is what vouches for their types and values: it is of this service's making.
    """
    try:
        number, its_query, value, key = _signer().unsign_object(cursor)
    except BadSignature:
        raise serializers.ValidationError({"after": ["It is not the `after` of a page."]}) from None
    if its_query != query:
        raise serializers.ValidationError({"after": ["This cursor belongs to another query."]})
    return number, value, key


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "required": False,
        "in": "query",
        "description": description,
        "schema": {"type": "integer"},
    }


def _number(request: Request, name: str, default: int) -> int:
    if (given := request.query_params.get(name)) is None:
        return default
    try:
        if not WHOLE.fullmatch(given):
            _positive.fail("invalid")
        number: int = _positive.run_validation(given)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({name: error.detail}) from None
    return number
