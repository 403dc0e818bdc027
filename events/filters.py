"""Which rows of a list, and in what order."""

from typing import Any

from django import forms
from django.db.models import QuerySet, Value
from django.db.models.functions import Upper
from django_filters.fields import ChoiceField
from django_filters.filters import CharFilter, ChoiceFilter, OrderingFilter
from django_filters.rest_framework.filterset import FilterSet
from rest_framework.exceptions import ValidationError
from rest_framework.filters import search_smart_split

from systemtasks.models import SYSTEM_TASK_SEARCH, SystemTask, search_document
from systemtasks.states import Status

TERM_LIMIT = 32
"""How many terms a search may have: Postgres took 2 seconds over a thousand, 47 over 5,000."""

STORED_FIELDS = tuple(field.name for field in SystemTask._meta.concrete_fields)


class StableOrderingFilter(OrderingFilter):
    """Orders by the fields named, `-` for descending, and by uuid where those are equal."""

    def filter(self, qs: QuerySet[SystemTask], value: list[str] | None) -> QuerySet[SystemTask]:
        ordered: QuerySet[SystemTask] = super().filter(qs, value)  # type: ignore[no-untyped-call]
        return ordered.order_by(*ordered.query.order_by, "uuid") if value else ordered


class StatedChoiceField(ChoiceField):
    """A choice that may be left out, but not be given as an empty text."""

    def clean(self, value: str | None) -> Any:  # noqa: ANN401 - as in Django
        if value == "":
            message = self.error_messages["invalid_choice"]
            raise forms.ValidationError(message, "invalid_choice", {"value": value})
        return super().clean(value)


class StatedChoiceFilter(ChoiceFilter):
    field_class = StatedChoiceField


class SystemTaskFilter(FilterSet):
    """`name`, `uid` and `status` exactly, `search` and `ordering`."""

    name = CharFilter()
    uid = CharFilter()
    status = StatedChoiceFilter(choices=Status.choices)  # type: ignore[no-untyped-call]
    search = CharFilter(
        method="filter_search",
        label="Words that the name, description, uid or messages contain, in any case.",
    )
    ordering = StableOrderingFilter(fields=STORED_FIELDS)  # type: ignore[no-untyped-call]

    def filter_search(
        self, queryset: QuerySet[SystemTask], name: str, value: str
    ) -> QuerySet[SystemTask]:
        """The rows that contain every term; terms are split as DRF's SearchFilter does.

        Raises ValidationError for more than TERM_LIMIT of them.
        """
        terms = search_smart_split(value)  # type: ignore[arg-type]  # the stubs are wrong
        if len(terms) > TERM_LIMIT:
            raise ValidationError({"search": [f"More than {TERM_LIMIT} terms."]})
        queryset = queryset.alias(document=search_document(*SYSTEM_TASK_SEARCH))
        for term in terms:
            # Upper case on both sides by Postgres itself, as in the expression of the index.
            queryset = queryset.filter(document__contains=Upper(Value(term)))
        return queryset
