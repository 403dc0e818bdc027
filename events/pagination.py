"""The pages of a list, as authentik numbers them."""

from typing import Any

from django.core.paginator import Paginator
from rest_framework import serializers
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response

_positive = serializers.IntegerField(min_value=1)


class Pagination(PageNumberPagination):
    """`?page=` and `?page_size=`, and a body that tells where the page stands, in numbers.

    After authentik's `authentik.api.pagination.Pagination`, but what is not a positive number is
    refused with 400.
    """

    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100

    def get_page_size(self, request: Request) -> int:
        """How many rows a page has; more than the most is the most. Raises ValidationError."""
        return min(_number(request, "page_size", self.page_size), self.max_page_size)

    def get_page_number(self, request: Request, paginator: "Paginator[Any]") -> int:
        """Which page was asked for, from 1. Raises ValidationError."""
        return _number(request, "page", 1)

    def get_paginated_response(self, data: Any) -> Response:  # noqa: ANN401 - serialized rows
        """The page, after where it stands; 0 stands for no next or previous page."""
        page = self.page
        assert page is not None  # noqa: S101 - paginate_queryset() came first
        return Response(
            {
                "pagination": {
                    "next": page.next_page_number() if page.has_next() else 0,
                    "previous": page.previous_page_number() if page.has_previous() else 0,
                    "count": page.paginator.count,
                    "current": page.number,
                    "total_pages": page.paginator.num_pages,
                    "start_index": page.start_index(),
                    "end_index": page.end_index(),
                },
                "results": data,
            }
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The OpenAPI schema of such a page."""
        return {
            "type": "object",
            "properties": {
                "pagination": {"$ref": "#/components/schemas/Pagination"},
                "results": schema,
            },
            "required": ["pagination", "results"],
        }


def _number(request: Request, name: str, default: int) -> int:
    if (given := request.query_params.get(name)) is None:
        return default
    try:
        number: int = _positive.run_validation(given)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({name: error.detail}) from None
    return number
