"""Which rows of a list, and in what order."""

import re
from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import QueryDict
from django.utils.text import smart_split
from django_filters.fields import ChoiceField, IsoDateTimeField
from django_filters.filters import (
    CharFilter,
    ChoiceFilter,
    IsoDateTimeFilter,
    NumberFilter,
    OrderingFilter,
    UUIDFilter,
)
from django_filters.rest_framework.filterset import FilterSet
from rest_framework.exceptions import ValidationError
from rest_framework.filters import search_smart_split

from systemtasks.models import SystemTask, TaskRun, containing
from systemtasks.states import State, Status

# The text forms of JSON, of RFC 9562 and, for the most part, of RFC 3339. Python and Django take
# more for a number, a uuid or a time: `1_0`, or the digits of any script.
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DAY, _CLOCK, _ZONE = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d(\.\d+)?)?", r"Z|[+-]\d\d:?\d\d"
TIME = re.compile(f"{_DAY}([T ]{_CLOCK}({_ZONE})?)?", re.ASCII)

TERM_LIMIT = 32
"""How many terms a search may have: Postgres took 2 seconds over a thousand, 47 over 5,000."""

ORDERING_FIELDS = (
    *(field.name for field in SystemTask._meta.concrete_fields if field.name != "messages"),
    "expiring",
)

IS_EXPIRING = ExpressionWrapper(Q(expires__isnull=False), output_field=BooleanField())
"""The property `SystemTask.expiring` as Postgres computes it."""


class StableOrderingFilter(OrderingFilter):
    """Orders by the fields named, `-` for descending, and by uuid where those are equal."""

    def filter(self, qs: QuerySet[SystemTask], value: list[str] | None) -> QuerySet[SystemTask]:
        qs = qs.alias(expiring=IS_EXPIRING)  # type: ignore[no-redef]  # it computes that property
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


class GivenFilterSet(FilterSet):
    """Makes a form of the filters that a query names, of which most polls name one or none."""

    base_filters: dict[str, Any]

    def __init__(self, data: QueryDict, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        named = data.keys() & self.base_filters.keys()
        self.base_filters = {name: self.base_filters[name] for name in sorted(named)}
        super().__init__(data, *args, **kwargs)  # type: ignore[no-untyped-call]


class SystemTaskFilter(GivenFilterSet):
    """`name`, `uid` and `status` exactly, `search` and `ordering`."""

    name = CharFilter()
    uid = CharFilter()
    status = StatedChoiceFilter(choices=Status.choices)  # type: ignore[no-untyped-call]
    search = CharFilter(
        method="filter_search",
        label="Words that the name, description, uid or messages contain, in any case.",
    )
    ordering = StableOrderingFilter(fields=ORDERING_FIELDS)  # type: ignore[no-untyped-call]

    def filter_search(
        self, queryset: QuerySet[SystemTask], name: str, value: str
    ) -> QuerySet[SystemTask]:
        """The rows that contain every term; raises ValidationError for more than TERM_LIMIT."""
        terms = search_terms(value)
        if len(terms) > TERM_LIMIT:
            raise ValidationError({"search": [f"More than {TERM_LIMIT} terms."]})
        return containing(queryset, terms)


def search_terms(text: str) -> list[str]:
    """The terms of a search, split as DRF's SearchFilter does.

    But a quote that stands alone is one, where DRF takes it for both ends of an empty phrase.
    """
    terms: list[str] = []
    for part in smart_split(text):
        bare = part.strip(",")
        terms += [bare] if bare in ("'", '"') else search_smart_split(part)  # type: ignore[arg-type]  # the stubs are wrong
    return terms


RUN_ORDERINGS = (
    *("-start_timestamp", "start_timestamp", "-finish_timestamp", "finish_timestamp"),
    *("-duration", "duration", "-id", "id"),
)


class StrictField(forms.Field):
    """A value in one text form, which an empty text has not: that is no filter left out."""

    text_form: ClassVar[re.Pattern[str]]

    def clean(self, value: str) -> Any:  # noqa: ANN401 - as in Django
        if not self.text_form.fullmatch(value):
            raise forms.ValidationError(self.error_messages["invalid"], "invalid")
        return super().clean(value)


class NumberField(StrictField, forms.DecimalField):
    text_form = NUMBER


class UUIDField(StrictField, forms.UUIDField):
    text_form = UUID_TEXT


class UTCField(StrictField, IsoDateTimeField):
    """A time in UTC, since Postgres does not take every offset from it that Python does."""

    text_form = TIME

    def to_python(self, value: Any) -> datetime | None:  # noqa: ANN401 - as in Django
        time: datetime | None = super().to_python(value)
        try:
            return time and time.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], "invalid") from None


class StrictNumberFilter(NumberFilter):
    field_class = NumberField


class StrictUUIDFilter(UUIDFilter):
    field_class = UUIDField


class UTCFilter(IsoDateTimeFilter):
    field_class = UTCField


class TaskRunFilter(GivenFilterSet):
    """Everything a run can be found by."""

    system_task = StrictUUIDFilter(  # type: ignore[no-untyped-call]
        field_name="system_task_id", label="The task's uuid"
    )
    name = CharFilter(field_name="system_task__name", label="The task's name")
    uid = CharFilter(field_name="system_task__uid", label="The task's uid")
    celery_id = CharFilter(label="What `.delay()` returned; each attempt is a run of its own")
    parent_id = CharFilter(label="Celery id of the run that sent it")
    root_id = CharFilter(label="Celery id of the run from which it descends")
    state = StatedChoiceFilter(choices=State.choices)  # type: ignore[no-untyped-call]
    status = StatedChoiceFilter(choices=Status.choices)  # type: ignore[no-untyped-call]
    worker = CharFilter()
    queue = CharFilter()
    started_from = UTCFilter(  # type: ignore[no-untyped-call]
        field_name="start_timestamp", lookup_expr="gte", label="Started then or later; ISO 8601"
    )
    started_until = UTCFilter(  # type: ignore[no-untyped-call]
        field_name="start_timestamp", lookup_expr="lt", label="Started before then; ISO 8601"
    )
    min_duration = StrictNumberFilter(  # type: ignore[no-untyped-call]
        field_name="duration", lookup_expr="gte", label="Took so many seconds or more"
    )
    ordering = ChoiceFilter(
        method="filter_ordering",
        choices=[(name, name) for name in RUN_ORDERINGS],
        label="Rows that are equal in it are ordered by `id`. A run that has not begun has no "
        "`start_timestamp`, and counts as the latest.",
    )

    def filter_ordering(
        self, queryset: QuerySet[TaskRun], name: str, value: str
    ) -> QuerySet[TaskRun]:
        """The rows in that order."""
        key = "-id" if value.startswith("-") else "id"
        return queryset.order_by(*dict.fromkeys((value, key)))
