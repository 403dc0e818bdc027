"""The change list of the admins."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, SEARCH_VAR, ChangeList
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import pgettext

from systemtasks.admin_parts.filters import StatusFilter
from systemtasks.admin_parts.text import number_text


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that is in force, and the address of the list without it."""

    title: str
    text: str
    url: str
    is_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Heading:
    """The heading of a column. `url` sorts by it, if that is offered."""

    name: str
    text: str
    url: str
    direction: str


class RowList(ChangeList):
    """Loads only the columns that the list shows.

    A parameter in the address that is not a filter of the list, or a value that is not one of its
    filter's, leaves no row, and the page says so: a list of everything would be taken for the
    answer.
    """

    filter_specs: list[Any]  # of ListFilter

    def __init__(self, request: HttpRequest, *args: Any) -> None:  # noqa: ANN401 - Django's own
        self.unknown: dict[str, str] = {}
        self.is_refused = False
        self.request_parameters = request.GET
        self.request = request
        self._search = request.GET.get(SEARCH_VAR, "")
        super().__init__(request, *args)
        self.title = capfirst(str(self.opts.verbose_name_plural))

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        # A search that Django's form refuses, with a NUL in it, is none to Django.
        self.is_refused = bool(self._search and not self.query)
        if self.is_refused or self.unknown or any(spec.wrong for spec in self.filter_specs):
            rows = rows.none()
        return self.model_admin.only_shown(rows)  # type: ignore[no-any-return, attr-defined]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:  # noqa: ANN401
        """Return the order of the address, or the list's own, if it names no column to sort by."""
        ordering = super().get_ordering(request, queryset)
        if list(ordering) == ["-pk"]:  # Django's order, by which no index finds what is filtered
            self.params.pop(ORDER_VAR, None)
            ordering = super().get_ordering(request, queryset)
        return ordering

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page. A page past the last one is the last one."""
        try:
            self._read(request)
        except DataError:
            self.is_refused = True
            self.queryset = self.root_queryset.none()
            self._read(request)

    def _read(self, request: HttpRequest) -> None:
        paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        page = paginator.get_page(self.page_num)
        self.page_num = page.number
        self.result_list = list(page.object_list)
        self.model_admin.complete(self.result_list)  # type: ignore[attr-defined]
        self.paginator: Paginator[Any] = paginator
        self.result_count = paginator.count
        # If the two differ, django-unfold shows "(Show all)" in the page's title.
        self.full_result_count = self.result_count
        self.show_full_result_count = False
        self.show_admin_actions = self.can_show_all = False
        self.multi_page = paginator.num_pages > 1
        self.status_counts: dict[str, int] = {}
        # A search is not counted a second time if it finds very many.
        is_search_cut = bool(self.query) and getattr(paginator, "is_cut", False)
        if self.model_admin.counts_statuses and not is_search_cut:  # type: ignore[attr-defined]
            specs = self.filter_specs
            rows = super().get_queryset(request, [StatusFilter.parameter_name])
            self.filter_specs = specs
            if self.queryset.query.is_empty():
                rows = rows.none()
            counts = rows.order_by().values_list("status").annotate(number=Count("*"))
            self.status_counts = dict(counts)

    def get_filters(self, request: HttpRequest) -> Any:  # noqa: ANN401 - a tuple of Django's own
        known = {name for spec in self.list_filter for name in spec.parameters()}  # type: ignore[union-attr]
        for name in set(self.get_filters_params()) - known:
            self.unknown[name] = ", ".join(self.filter_params.pop(name))
            self.params.pop(name, None)
        filters, _, *rest = super().get_filters(request)
        # False, because both skins would hide the filters: in a sidebar, or behind a button.
        return filters, False, *rest

    @property
    def count_text(self) -> str:
        """Return how many rows there are, such as `1,234` or `more than 10,000`."""
        if self.status_counts:
            status = next(s.value() for s in self.filter_specs if isinstance(s, StatusFilter))
            counts = self.status_counts
            return number_text(counts.get(status, 0) if status else sum(counts.values()))
        text = number_text(self.result_count)
        if getattr(self.paginator, "is_cut", False):
            return pgettext("systemtasks", "more than {}").format(text)
        return text

    def chips(self) -> Iterator[Chip]:
        """Yield every filter that is in force, the search among them."""
        for name, value in self.unknown.items():
            yield Chip(name, value, self.get_query_string(), is_wrong=True)
        if self._search:
            url = self.get_query_string({SEARCH_VAR: None})
            yield Chip(pgettext("systemtasks", "Search"), self._search, url, self.is_refused)
        for spec in self.filter_specs:
            for name, title, text in spec.in_force():
                url = self.get_query_string({name: None})
                yield Chip(capfirst(title), text, url, is_wrong=name in spec.wrong)

    def headings(self) -> Iterator[Heading]:
        """Yield the headings of the columns."""
        directions = self.get_ordering_field_columns()
        if not self.params.get(ORDER_VAR):
            name, way = self.model_admin.sorted_by  # type: ignore[attr-defined]
            directions = {self.list_display.index(name): way}
        for index, name in enumerate(self.list_display):
            column = getattr(self.model_admin, str(name))
            url, direction = "", ""
            if self.get_ordering_field(name):
                way = directions.get(index, "")
                direction = {"asc": "ascending", "desc": "descending"}.get(way, "none")
                newest_first = name in self.model_admin.newest_first  # type: ignore[attr-defined]
                descends = way == "asc" or (not way and newest_first)
                url = self.get_query_string({ORDER_VAR: f"{'-' if descends else ''}{index}"})
            text = capfirst(str(column.short_description))
            yield Heading(str(name), text, url, direction)

    def cells(self) -> Iterator[dict[str, Any]]:
        """Yield each row: its key, the address of its page, and the cell of each column."""
        links = self.list_display_links or ()
        admin = self.model_admin
        viewname = f"{admin.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change"
        for row in self.result_list:
            url = reverse(viewname, args=[quote(row.pk)]) if links else ""
            cells = [
                (str(name), getattr(admin, str(name))(row), name in links)
                for name in self.list_display
            ]
            yield {"key": row.pk, "url": url, "cells": cells}

    def pages(self) -> list[tuple[str, str, bool]]:
        """Return the links to pages: each a number, its address, and True for the current one."""
        if not self.multi_page:
            return []
        numbers = self.paginator.get_elided_page_range(self.page_num, on_each_side=2, on_ends=1)
        return [
            (
                str(number),
                self.get_query_string({PAGE_VAR: number}) if isinstance(number, int) else "",
                number == self.page_num,
            )
            for number in numbers
        ]


class UnreadRowList(RowList):
    """The rows that the filters leave, of which none is read yet."""

    def get_results(self, request: HttpRequest) -> None:
        self.result_list = []
