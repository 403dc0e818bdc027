"""The change list of the admins."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError, ProgrammingError
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from psycopg.errors import UndefinedFunction

from systemtasks.admin_parts.filters import StatusFilter


class RowList(ChangeList):
    """Loads only the columns that the list shows. The filters are in a bar above the list."""

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        return self.model_admin.only_shown(rows)  # type: ignore[no-any-return, attr-defined]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page's rows. Raise IncorrectLookupParameters if Postgres refuses a value."""
        try:
            super().get_results(request)
        except (DataError, ProgrammingError) as error:
            # A lookup such as `name__unaccent` needs a function that Postgres may not have.
            if isinstance(error, DataError) or isinstance(error.__cause__, UndefinedFunction):
                raise IncorrectLookupParameters(str(error)) from error
            raise
        # If the two differ, django-unfold shows "(Show all)" in the page's title.
        self.full_result_count = self.result_count
        self.status_counts: dict[str, int] = {}
        if self.model_admin.counts_statuses:  # type: ignore[attr-defined]
            rows = super().get_queryset(request, [StatusFilter.parameter_name])
            counts = rows.order_by().values_list("status").annotate(Count("pk"))
            self.status_counts = dict(counts)

    def get_filters(self, request: HttpRequest) -> Any:  # noqa: ANN401 - a tuple of Django's own
        filters, _, *rest = super().get_filters(request)
        # False, because both skins would hide the filters: in a sidebar, or behind a button.
        return filters, False, *rest
