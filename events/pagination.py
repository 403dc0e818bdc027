"""Split lists into pages, numbered as authentik numbers them."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar
from uuid import UUID

from django.core.signing import BadSignature, Signer
from django.db import connections
from django.db.models import Q
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from systemtasks.page_keys import Found, estimate, find

COUNT_LIMIT = 10_000
"""Rows that are counted exactly. A larger count is the estimate of Postgres's planner."""

LARGEST_OFFSET = 2**63 - 1  # that Postgres accepts

DEEPEST_ROW = 10_000
"""The last row that pages by number show in a list with cursors. `after` leads to the others."""

SEARCHED_FIRST = (timedelta(days=1), timedelta(days=8))
"""The spans in which errors are searched before all are, as long as the page is not full."""

TOO_DEEP = f"Pages by number end after {DEEPEST_ROW:,} rows; `after` goes on, or narrow the list."

WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
"""The text form of a whole number: int() also takes `1_0`, and digits of other scripts."""

_positive = serializers.IntegerField(min_value=1)

Rows = Any  # a queryset; Pagination also takes a list


class Pagination(BasePagination):
    """Pages by number: `?page=` and `?page_size=`.

    The responses are those of authentik's `authentik.api.pagination.Pagination`, except that a
    parameter that is not a positive number is refused with 400. `next` is always exact; `count` is
    an estimate above COUNT_LIMIT.
    """

    page_size = 20
    max_page_size = 100
    component: ClassVar = "Pagination"
    has_partitions: ClassVar = False

    def paginate_queryset(
        self, queryset: Rows, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """Return the rows of the page that the request asks for.

        Raise ValidationError for a malformed parameter, and NotFound for a page past the end. A
        page size above `max_page_size` counts as `max_page_size`.
        """
        self.read(request)
        rows, counted = self.found(queryset)
        if not rows and self.start:
            raise NotFound("Invalid page.")
        self.has_next = len(rows) > self.size
        self.rows = rows[: self.size]
        seen = self.start + len(rows)
        self.count = max(counted(), seen) if self.has_next else seen
        return self.rows

    def read(self, request: Request) -> None:
        """Read which page the request asks for. Raise ValidationError for a malformed parameter."""
        self.size = min(_number(request, "page_size", self.page_size), self.max_page_size)
        self.number = self.page_number(request)
        self.start = (self.number - 1) * self.size

    def page_number(self, request: Request) -> int:
        """Return the number of the page that the request asks for, from 1."""
        return _number(request, "page", 1)

    def found(self, queryset: Rows) -> tuple[list[Any], Callable[[], int]]:
        """Return the page's rows, and one more if there is a next page; and what counts all."""
        stop = self.start + self.size + 1
        if isinstance(queryset, list):
            return queryset[self.start : stop], lambda: len(queryset)
        if stop > LARGEST_OFFSET:
            return [], lambda: 0
        if not queryset.query.where or not self.has_partitions:
            is_direct = not (self.start or self.has_partitions)
            rows = queryset[:stop] if is_direct else find(queryset, self.start, stop, 0).read()
            return list(rows), lambda: count(queryset)
        found = find(queryset, self.start, stop, COUNT_LIMIT + 1)
        return found.read(), lambda: _count(found)

    def position(self) -> dict[str, Any]:
        """Return the page's position in the list; 0 stands for no next or previous page."""
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
        """Return a response with the page, its position, and an empty `autocomplete`.

        Clients of authentik 2025.6.2 and later require that key. The schema does not name it, since
        the wire format of 2024.6 does not have it.
        """
        return Response({"pagination": self.position(), "results": data, "autocomplete": {}})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the OpenAPI schema of a page; `schema` is that of its rows."""
        return {
            "type": "object",
            "properties": {
                "pagination": {"$ref": f"#/components/schemas/{self.component}"},
                "results": schema,
            },
            "required": ["pagination", "results"],
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Return the OpenAPI parameters of a list with such pages."""
        return [
            _parameter("page", "A page number within the paginated result set."),
            _parameter("page_size", "Number of results to return per page."),
        ]


class KeysetPagination(Pagination):
    """Pages by number, or by `?after=`: a cursor that continues after the last row of a page.

    For a page by number, Postgres reads all rows before it, so such pages end at DEEPEST_ROW. For a
    page by cursor it reads none of them if the ordering column has an index. The rows must be
    ordered by one column and then by `id`. A cursor is valid for the query that it was made for,
    its page size included. With any other query it is refused with 400.
    """

    component: ClassVar = "RunPagination"
    has_partitions: ClassVar = True

    def paginate_queryset(
        self, queryset: Rows, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """Return the rows of the page that the request asks for, as Pagination does.

        Raise ValidationError for a cursor of another query, too.
        """
        self.order = str(queryset.query.order_by[0])
        filters: Any = getattr(view, "filterset_class", None)
        self.filters = filters.base_filters if filters else ()
        self.after: tuple[Any, str] | None = None
        # In another order, a search has a short span.
        is_newest_first = self.order == "-sort_timestamp"
        self.is_search = is_newest_first and bool(request.query_params.get("search"))
        return super().paginate_queryset(queryset, request, view)

    def page_number(self, request: Request) -> int:
        """Return the number of the page that the request asks for, from 1; a cursor holds it.

        Raise ValidationError for a page without a cursor that ends after DEEPEST_ROW.
        """
        self.query = self.digest(request)
        if (cursor := request.query_params.get("after")) is None:
            by_number = super().page_number(request)
            if by_number > 1 and by_number * self.size > DEEPEST_ROW:
                raise serializers.ValidationError({"page": [TOO_DEEP]})
            return by_number
        number, *self.after = _decoded(cursor, self.query)  # type: ignore[assignment]
        return number

    def digest(self, request: Request) -> str:
        """Return a short text that is the same for two requests only if their queries are."""
        given = {name: request.query_params.get(name) for name in self.filters}
        given["ordering"] = self.order  # also where it is the default
        query = [self.size, sorted((name, text) for name, text in given.items() if text)]
        return sha256(json.dumps(query).encode()).hexdigest()[:16]

    def found(self, queryset: Rows) -> tuple[list[Any], Callable[[], int]]:
        """Return the page's rows, and one more if there is a next page; and what counts all."""
        if self.after is None:
            return self.found_newest(queryset) if self.is_search else super().found(queryset)
        rows: list[Any] = []
        for part in _parts(queryset, self.order, *self.after):
            missing = self.size + 1 - len(rows)
            for narrow in _narrowed(part, str(self.after[0] or "")) if self.is_search else (part,):
                found = find(narrow, 0, missing, 0)
                if len(found.keys) == missing:
                    break
            rows += found.read()
            if len(rows) > self.size:
                break
        return rows, lambda: estimate(queryset) if self.is_search else count(queryset)

    def found_newest(self, queryset: Rows) -> tuple[list[Any], Callable[[], int]]:
        """Do as `found`, but look among the newest rows first.

        What is searched for may be in so many rows that it takes seconds to read and to sort them.
        """
        for rows in _narrowed(queryset):
            found = find(rows, self.start, self.start + self.size + 1, COUNT_LIMIT + 1)
            if len(found.keys) > self.size:
                break
        is_all = rows is queryset
        counted = found.count
        return found.read(), lambda: _count(found) if is_all else max(counted, estimate(queryset))

    def position(self) -> dict[str, Any]:
        """Return the page's position, and the cursor of the next page: empty if there is none."""
        after = ""
        if self.has_next:
            last = self.rows[-1]
            value = getattr(last, self.order.removeprefix("-"))
            if isinstance(value, datetime | UUID):
                value = str(value)
            after = _encoded([self.number + 1, self.query, value, str(last.pk)])
        return {**super().position(), "after": after}

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Return the OpenAPI parameters of a list with such pages."""
        after = {
            **_parameter("after", "`pagination.after` of a page: the page that follows it."),
            "schema": {"type": "string"},
        }
        return sorted(
            [*super().get_schema_operation_parameters(view), after], key=lambda each: each["name"]
        )


def count(rows: Rows) -> int:
    """Return the number of rows: exact up to COUNT_LIMIT, an estimate above it."""
    return _count(find(rows, 0, 0, COUNT_LIMIT + 1)) if rows.query.where else _count_all(rows)


def _count(found: Found) -> int:
    """Return the number of the rows of which one has been found, with the precision of `count`."""
    return found.count if found.count <= COUNT_LIMIT else max(found.count, found.estimate())


def _count_all(rows: Rows) -> int:
    """Return the number of rows in the table, with the precision of `count`."""
    connection: Any = connections[rows.db]
    table = connection.ops.quote_name(rows.model._meta.db_table)
    with connection.cursor() as cursor:
        # The estimate of a table with partitions is the sum of theirs, and may be lacking itself.
        cursor.execute(
            "SELECT CASE WHEN estimate > %s THEN estimate::bigint "  # noqa: S608 - our own table
            f"ELSE (SELECT count(*) FROM {table}) END FROM "
            "(SELECT sum(reltuples) AS estimate FROM pg_class "
            "WHERE reltuples > 0 AND relkind = 'r' AND oid IN "
            "(SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass "
            "UNION SELECT %s::regclass)) AS known",
            [COUNT_LIMIT, table, table],
        )
        [(counted,)] = cursor.fetchall()
    return int(counted)


def _parts(rows: Rows, order: str, value: object, key: str) -> list[Rows]:
    """Return querysets that together hold the rows after one, in this order.

    `value` and `key` are the row's ordering column and id. Each queryset is one range of an index
    if the column has one: TaskRun's `start_timestamp` and `id` have an index, `duration` and
    `finish_timestamp` do not. Postgres sorts NULL after every value.
    """
    column = order.removeprefix("-")
    descending = order.startswith("-")
    lookup = "lt" if descending else "gt"
    id_after = Q(**{f"id__{lookup}": key})
    if column == "id":
        return [rows.filter(id_after)]
    null = Q(**{f"{column}__isnull": True})
    if value is None:
        nulls_after = rows.filter(null & id_after)
        return [nulls_after, rows.filter(~null)] if descending else [nulls_after]
    after = Q(**{f"{column}__{lookup}e": value}) & (Q(**{f"{column}__{lookup}": value}) | id_after)
    values_after = rows.filter(after)
    return [values_after] if descending else [values_after, rows.filter(null)]


def _narrowed(rows: Rows, before: str = "") -> Iterator[Rows]:
    """Yield the newest of the rows, then more of them, and all in the end.

    All of them are older than the time `before`, or than now. The order is that of their start, in
    which those without one come first.
    """
    for span in SEARCHED_FIRST:
        end = datetime.fromisoformat(before) if before else datetime.now(UTC)
        newest = Q(sort_timestamp__gte=end - span)
        yield rows.filter(newest | Q(sort_timestamp__isnull=True))
    yield rows


def _signer() -> Signer:
    return Signer(salt="events.pagination", sep=".")


def _encoded(cursor: list[Any]) -> str:
    return _signer().sign_object(cursor)


def _decoded(cursor: str, query: str) -> tuple[int, Any, str]:
    """Return the page's number, and the ordering value and the id of the row before it.

    Their types need no check: the signature shows that this service made the cursor. Raise
    ValidationError if it did not make the cursor, or made it for another query.
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
    """Return a positive number of the query. Raise ValidationError for anything else."""
    if (given := request.query_params.get(name)) is None:
        return default
    try:
        if not WHOLE.fullmatch(given):
            _positive.fail("invalid")
        number: int = _positive.run_validation(given)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({name: error.detail}) from None
    return number
