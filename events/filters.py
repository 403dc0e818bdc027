"""Filter, search and order the lists."""

import re
from datetime import UTC, datetime, timedelta
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

from systemtasks.models import LONG, SystemTask, SystemTaskQuerySet, TaskRun, TaskRunQuerySet
from systemtasks.runs.journal_line import id_text
from systemtasks.runs.values import utc
from systemtasks.states import State, Status

from .defaults import EXACTLY, ONE_OF
from .serializers import TASK_COLUMNS

# The text forms of JSON, RFC 9562 and, with a few liberties, RFC 3339. Python and Django accept
# more as a number, a uuid or a time: `1_0`, or digits of other scripts.
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DAY, _CLOCK, _ZONE = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d(\.\d+)?)?", r"Z|[+-]\d\d:?\d\d"
TIME = re.compile(f"{_DAY}([T ]{_CLOCK}({_ZONE})?)?", re.ASCII)

TERM_LIMIT = 32
"""Maximum terms of a search. Postgres took 2 seconds for a thousand, and 47 for 5,000."""

TERM_LENGTH = 3
"""The characters that one term of a search must have: the index has texts of this length."""

TOO_SHORT = f"One of the terms must have at least {TERM_LENGTH} characters."

SHORT = timedelta(hours=25)
"""The span of time in which what no index finds is searched: a day, which may have an hour more."""

IN_A_DAY = "`started_from`, and no more than a day from there to `started_until` or now"
SHORT_DURATION = f"Less than {LONG:.0f} seconds needs {IN_A_DAY}."
BY_DURATION = f"The order by `duration` needs `min_duration`, or {IN_A_DAY}."
BY_SEARCH = f"Errors are searched newest first. Another order needs {IN_A_DAY}."
BY_FINISH = f"The order by `finish_timestamp` needs {IN_A_DAY}."
NOT_BY_ID = ("started_from", "started_until", "state", "status", "min_duration")
BY_ID = (
    "The order by `id` does not go with a span, `state`, `status` or `min_duration`: "
    "order by `start_timestamp`."
)

FEW_TASKS = 100
"""Tasks of one name, or of one uid, of which a query of runs has the uuids."""

ORDERING_FIELDS = (*TASK_COLUMNS, "expiring")

IS_EXPIRING = ExpressionWrapper(Q(expires__isnull=False), output_field=BooleanField())
"""The property `SystemTask.expiring`, as an expression for Postgres."""


class StableOrderingFilter(OrderingFilter):
    """Order by the given fields, and rows that are equal in them by `uuid`.

    A `-` before a field means descending order.
    """

    def filter(self, qs: QuerySet[SystemTask], value: list[str] | None) -> QuerySet[SystemTask]:
        qs = qs.alias(expiring=IS_EXPIRING)  # type: ignore[no-redef]  # stands for the property
        ordered: QuerySet[SystemTask] = super().filter(qs, value)  # type: ignore[no-untyped-call]
        return ordered.order_by(*ordered.query.order_by, "uuid") if value else ordered


class StatedChoiceField(ChoiceField):
    """A choice that may be absent from the query, but may not be empty in it."""

    def clean(self, value: str | None) -> Any:  # noqa: ANN401 - as in Django
        if value == "":
            message = self.error_messages["invalid_choice"]
            raise forms.ValidationError(message, "invalid_choice", {"value": value})
        return super().clean(value)


class StatedChoiceFilter(ChoiceFilter):
    field_class = StatedChoiceField


class GivenFilterSet(FilterSet):
    """Makes a form of only the filters that the query names.

    Most requests name at most one, and each field of a form costs time.
    """

    base_filters: dict[str, Any]

    def __init__(self, data: QueryDict, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        named = data.keys() & self.base_filters.keys()
        self.base_filters = {name: self.base_filters[name] for name in sorted(named)}
        super().__init__(data, *args, **kwargs)  # type: ignore[no-untyped-call]


class SystemTaskFilter(GivenFilterSet):
    """The filters of the tasks. `name`, `uid` and `status` match exactly."""

    name = CharFilter(**EXACTLY)
    uid = CharFilter(**EXACTLY)
    status = StatedChoiceFilter(**ONE_OF, choices=Status.choices)  # type: ignore[no-untyped-call]
    search = CharFilter(
        method="filter_search",
        label="Words that the name, description, uid or messages contain, in any case. "
        f"{TOO_SHORT}",
    )
    ordering = StableOrderingFilter(fields=ORDERING_FIELDS)  # type: ignore[no-untyped-call]

    def filter_search(
        self, queryset: SystemTaskQuerySet, name: str, value: str
    ) -> SystemTaskQuerySet:
        """Return the rows that contain every term of `value`, in any case.

        Raise what `checked_terms` raises.
        """
        terms = checked_terms(value)
        return queryset.containing(terms) if terms else queryset


def checked_terms(text: str) -> list[str]:
    """Return the terms of a search.

    Raise ValidationError if there are more than TERM_LIMIT, or if none is long enough for an index.
    """
    terms = search_terms(text)
    if len(terms) > TERM_LIMIT:
        raise ValidationError({"search": [f"More than {TERM_LIMIT} terms."]})
    if terms and max(map(len, terms)) < TERM_LENGTH:
        raise ValidationError({"search": [TOO_SHORT]})
    return terms


def search_terms(text: str) -> list[str]:
    """Return the terms of a search, split as DRF's SearchFilter does.

    A quote that stands alone is a term here. DRF takes it for an empty phrase.
    """
    terms: list[str] = []
    for part in smart_split(text):
        bare = part.strip(",")
        terms += [bare] if bare in ("'", '"') else search_smart_split(part)  # type: ignore[arg-type]  # the stubs are wrong
    return terms


RUN_ORDERINGS = {
    "-start_timestamp": "-sort_timestamp",
    "start_timestamp": "sort_timestamp",
    "-finish_timestamp": "-finish_timestamp",
    "finish_timestamp": "finish_timestamp",
    "-duration": "-duration",
    "duration": "duration",
    "-id": "-id",
    "id": "id",
}
"""The orders of runs, and the columns that they go by.

What starts is ordered by one clock, the database's, and shown by that of its host.
"""


def utc_time(text: str) -> datetime:
    """Return the time in UTC. A text without a time zone is in UTC already.

    Raise ValueError for any text that is not of the form TIME.
    """
    if not TIME.fullmatch(text):
        raise ValueError(f"{text!r} is not an ISO 8601 time")
    try:
        return utc(text)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range in UTC") from error


class StrictField(forms.Field):
    """A field that accepts a single text form of its value.

    An empty text is an error here, and not a filter that was left out.
    """

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
    """A time, converted to UTC: Python accepts offsets that Postgres refuses."""

    text_form = TIME

    def to_python(self, value: Any) -> datetime:  # noqa: ANN401 - as in Django
        try:
            return utc_time(value)
        except ValueError:
            raise forms.ValidationError(self.error_messages["invalid"], "invalid") from None


class StrictNumberFilter(NumberFilter):
    field_class = NumberField


class StrictUUIDFilter(UUIDFilter):
    field_class = UUIDField


class UTCFilter(IsoDateTimeFilter):
    field_class = UTCField


class CeleryIdFilter(CharFilter):
    """Matches a Celery id as it is stored, in which a very long one is cut."""

    def filter(self, qs: QuerySet[TaskRun], value: str) -> QuerySet[TaskRun]:
        ids: QuerySet[TaskRun] = super().filter(qs, value and id_text(value))  # type: ignore[no-untyped-call]
        return ids


class RootFilter(CeleryIdFilter):
    """Finds the runs that descend from one, and that one."""

    def filter(self, qs: TaskRunQuerySet, value: str) -> TaskRunQuerySet:  # type: ignore[override]
        return qs.of_root(id_text(value)) if value else qs


def _tasks(of_task: dict[str, str]) -> Any:  # noqa: ANN401 - a list or a subquery
    """Return the uuids of the tasks with this name or uid.

    Uuids, because the planner knows how many runs each of them has. There may be too many of them.
    """
    uuids = SystemTask.objects.filter(**of_task).order_by().values_list("uuid", flat=True)
    few = list(uuids[: FEW_TASKS + 1])
    return few if len(few) <= FEW_TASKS else uuids


class TaskRunFilter(GivenFilterSet):
    """The filters of the runs."""

    system_task = StrictUUIDFilter(  # type: ignore[no-untyped-call]
        **EXACTLY, field_name="system_task_id", label="The task's uuid"
    )
    # These two are for SystemTask: see `filter_queryset`.
    name = CharFilter(**EXACTLY, label="The task's name")
    uid = CharFilter(**EXACTLY, label="The task's uid")
    celery_id = CeleryIdFilter(  # type: ignore[no-untyped-call]
        **EXACTLY,
        label="What `.delay()` returned; each attempt, and each execution, is a run of its own",
    )
    parent_id = CeleryIdFilter(  # type: ignore[no-untyped-call]
        **EXACTLY, label="Celery id of the run that sent it"
    )
    root_id = RootFilter(  # type: ignore[no-untyped-call]
        **EXACTLY, label="Celery id of the run from which it descends"
    )
    state = StatedChoiceFilter(**ONE_OF, choices=State.choices)  # type: ignore[no-untyped-call]
    status = StatedChoiceFilter(**ONE_OF, choices=Status.choices)  # type: ignore[no-untyped-call]
    worker = CharFilter(**EXACTLY)
    queue = CharFilter(**EXACTLY)
    started_from = UTCFilter(  # type: ignore[no-untyped-call]
        field_name="sort_timestamp",
        lookup_expr="gte",
        label="Runs that started at this time or later; ISO 8601",
    )
    started_until = UTCFilter(  # type: ignore[no-untyped-call]
        field_name="sort_timestamp",
        lookup_expr="lt",
        label="Runs that started before this time; ISO 8601",
    )
    search = CharFilter(
        method="filter_search",
        label=f"Words that the error of the run contains, in any case. {TOO_SHORT} {BY_SEARCH}",
    )
    min_duration = StrictNumberFilter(  # type: ignore[no-untyped-call]
        field_name="duration",
        lookup_expr="gte",
        label=f"Runs that took this many seconds or more. {SHORT_DURATION}",
    )
    ordering = ChoiceFilter(
        **ONE_OF,
        method="filter_ordering",
        choices=[(name, name) for name in RUN_ORDERINGS],
        label="Order by this field, and runs that are equal in it by `id`. A run that has not "
        f"started counts as the latest. {BY_DURATION} {BY_FINISH} {BY_ID}",
    )

    def filter_queryset(self, queryset: TaskRunQuerySet) -> TaskRunQuerySet:
        """Return the runs that the filters leave, in the order that is asked for.

        Raise ValidationError for a query that would read all runs.
        """
        given: dict[str, Any] = self.form.cleaned_data
        self.refuse_to_read_all(given)
        of_task = {name: text for name in ("name", "uid") if (text := given.pop(name, ""))}
        runs: TaskRunQuerySet = super().filter_queryset(queryset)  # type: ignore[no-untyped-call]
        return runs.filter(system_task__in=_tasks(of_task)) if of_task else runs

    def refuse_to_read_all(self, given: dict[str, Any]) -> None:
        """Raise ValidationError if no index has the runs or the order, and the span is not short.

        `given` has the values of the filters in the request.
        """
        column = (given.get("ordering") or "").removeprefix("-")
        if column == "id" and any(given.get(name) not in (None, "") for name in NOT_BY_ID):
            # Postgres would look for them among all ids, and does not know that they are together.
            raise ValidationError({"ordering": [BY_ID]})
        start, end = given.get("started_from"), given.get("started_until")
        now = datetime.now(UTC)
        if start and min(end or now, now) - start <= SHORT:
            return
        if given.get("search") and given.get("ordering") not in (None, "", "-start_timestamp"):
            raise ValidationError({"ordering": [BY_SEARCH]})
        least = given.get("min_duration")
        if least is not None and least < LONG:
            raise ValidationError({"min_duration": [SHORT_DURATION]})
        if column == "duration" and least is None:
            raise ValidationError({"ordering": [BY_DURATION]})
        if column == "finish_timestamp":
            raise ValidationError({"ordering": [BY_FINISH]})

    def filter_search(self, queryset: TaskRunQuerySet, name: str, value: str) -> TaskRunQuerySet:
        """Return the runs whose error contains every term of `value`, in any case.

        Raise what `checked_terms` raises.
        """
        terms = checked_terms(value)
        return queryset.with_error(terms) if terms else queryset

    def filter_ordering(
        self, queryset: QuerySet[TaskRun], name: str, value: str
    ) -> QuerySet[TaskRun]:
        """Return the rows ordered by `value`, and by id in the same direction."""
        key = "-id" if value.startswith("-") else "id"
        return queryset.order_by(*dict.fromkeys((RUN_ORDERINGS[value], key)))
