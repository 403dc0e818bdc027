"""Prepare a list for its template: pills, filters and chips above the rows, rows, and pages."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.urls import reverse
from django.utils import timezone

from systemtasks.admin_parts.counting import COUNT_LIMIT
from systemtasks.admin_parts.export import EXPORT_LIMIT
from systemtasks.admin_parts.filters import ListFilter, StatusFilter, TimeFilter
from systemtasks.admin_parts.rows import Chip, Heading, RowList
from systemtasks.admin_parts.saved_views import SHARE, View, views_of
from systemtasks.admin_parts.text import number_text


@dataclass(frozen=True, slots=True)
class Pill:
    """A filter that is one click away."""

    text: str
    kind: str
    url: str
    is_current: bool
    count: str = ""


class Bar:
    """Everything that the template of a list shows."""

    search_var = SEARCH_VAR

    def __init__(self, cl: RowList, title_tag: str) -> None:
        self.cl = cl
        self.title_tag = title_tag

    @cached_property
    def chips(self) -> list[Chip]:
        """Return the filters in force."""
        return list(self.cl.chips())

    @cached_property
    def headings(self) -> list[Heading]:
        """Return the headings of the columns."""
        return list(self.cl.headings())

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the page."""
        return list(self.cl.cells())

    @cached_property
    def pages(self) -> list[tuple[str, str, bool]]:
        """Return the links to pages."""
        return self.cl.pages()

    @cached_property
    def listed(self) -> str:
        """Return the number of rows that the pages list."""
        return number_text(min(self.cl.result_count, COUNT_LIMIT))

    @cached_property
    def pills(self) -> list[Pill]:
        """Return the filters that are one click away."""
        return [
            self._pill(text, parameters)
            for text, parameters in self.cl.model_admin.pills  # type: ignore[attr-defined]
        ]

    def _pill(self, text: Any, parameters: dict[str, str]) -> Pill:  # noqa: ANN401 - a lazy text
        cl = self.cl
        names = dict.fromkeys(name for _, of in cl.model_admin.pills for name in of)  # type: ignore[attr-defined]
        wanted = {name: parameters.get(name) for name in names}
        in_force = {name: cl.params.get(name) or None for name in names}
        counts = cl.status_counts
        count = ""
        if counts:
            status = parameters.get(StatusFilter.parameter_name)
            count = number_text(counts.get(status, 0) if status else sum(counts.values()))
        kind = "".join(v for k, v in parameters.items() if k in ("status", "state"))
        return Pill(str(text), kind, cl.get_query_string(wanted), wanted == in_force, count)

    @property
    def _in_pills(self) -> set[str]:
        return {name for pill in self.cl.model_admin.pills for name in pill[1]}  # type: ignore[attr-defined]

    @cached_property
    def specs(self) -> list[ListFilter]:
        """Return the filters that have a field."""
        return [spec for spec in self.cl.filter_specs if spec.is_offered]

    @cached_property
    def bounds(self) -> list[tuple[str, str, str]]:
        """Return the fields for times: each a name, a title and a value."""
        return [
            (name, spec.title_of(name), spec.used_parameters.get(name, ""))
            for spec in self.cl.filter_specs
            if isinstance(spec, TimeFilter)
            for name in spec.extra_parameters
        ]

    @property
    def zone(self) -> str:
        """Return the name of the time zone of these times."""
        return timezone.get_current_timezone_name()

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Return the parameters that have no field, and stay when the form is sent."""
        hidden = (spec for spec in self.cl.filter_specs if not spec.is_offered)
        names = [*(spec.parameter_name for spec in hidden), ORDER_VAR]
        return [(name, value) for name in names if (value := self.cl.params.get(name))]

    @cached_property
    def views(self) -> list[View]:
        """Return the saved views of the list."""
        return views_of(self.cl.request, str(self.cl.opts.model_name))

    @cached_property
    def current_query(self) -> str:
        """Return what a new view is saved with, or "" if no filter is in force."""
        return self.cl.get_query_string({PAGE_VAR: None}).removeprefix("?")

    @property
    def may_share(self) -> bool:
        """Return True if the user may save views for all."""
        return self.cl.request.user.has_perm(SHARE)

    @property
    def save_view_url(self) -> str:
        """Return the address that saves a view."""
        return reverse(f"{self._names}_save_view")

    @property
    def delete_view_name(self) -> str:
        """Return the name of the address that deletes a view."""
        return f"{self._names}_delete_view"

    @property
    def _names(self) -> str:
        opts = self.cl.opts
        site = self.cl.model_admin.admin_site.name
        return f"{site}:{opts.app_label}_{opts.model_name}"

    @cached_property
    def select_url(self) -> str:
        """Return the address that gets the rows that are selected, or "" if none can be."""
        if not self.cl.result_list:
            return ""
        return self.cl.model_admin.select_url(self.cl.request)  # type: ignore[attr-defined, no-any-return]

    @cached_property
    def exports(self) -> list[tuple[str, str]]:
        """Return the formats in which the rows can be had, each with its address."""
        query = self.cl.get_query_string({PAGE_VAR: None})
        return [(name, f"export.{name.lower()}{query}") for name in ("CSV", "NDJSON")]

    @property
    def exported(self) -> str:
        """Return the number of rows that an export has at most, or "" if the list has fewer."""
        may_be_more = getattr(self.cl.paginator, "is_cut", False)
        return number_text(EXPORT_LIMIT) if may_be_more else ""

    @cached_property
    def hint(self) -> dict[str, str]:
        """Return a sentence about the search, and a link that it may have."""
        return self.cl.model_admin.search_hint(self.cl)  # type: ignore[attr-defined, no-any-return]
