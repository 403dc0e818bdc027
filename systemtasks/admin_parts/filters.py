"""The filters of the lists."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import pgettext_lazy

from systemtasks.admin_parts.counting import VALUE_LIMIT, distinct_values
from systemtasks.admin_parts.text import local
from systemtasks.models import SystemTask, TaskRun
from systemtasks.states import State, Status

Choices = Iterable[tuple[str, Any]]
Rows = QuerySet[Any]


class ColumnFilter(SimpleListFilter):
    """Selects the rows with one value in the column `parameter_name`."""

    parameter_name: str

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        value = self.value()
        if not value:
            return queryset
        return queryset.filter(**{self.parameter_name: self.checked(value)})

    def has_output(self) -> bool:
        return True

    def checked(self, value: str) -> Any:  # noqa: ANN401 - any column's value
        """Return the value for the query. Raise IncorrectLookupParameters if it is invalid."""
        if "\0" in value:
            raise IncorrectLookupParameters(value)
        return value


class ChoiceFilter(ColumnFilter):
    """Selects the rows with one of a column's choices."""

    known: type[Status] | type[State]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ANN401
        return self.known.choices

    def checked(self, value: str) -> str:
        if value not in self.known.values:
            raise IncorrectLookupParameters(value)
        return value


class StatusFilter(ChoiceFilter):
    title = pgettext_lazy("systemtasks", "status")
    parameter_name = "status"
    known = Status


class StateFilter(ChoiceFilter):
    title = pgettext_lazy("systemtasks", "state")
    parameter_name = "state"
    known = State

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        queryset = super().queryset(request, queryset)
        value = self.value()
        if not value or State(value).outcome.status == Status.SUCCESSFUL:
            return queryset
        # The status has an index, unlike the state, and nearly all runs are successful.
        return queryset.filter(status__in=set(Status.values) - {Status.SUCCESSFUL})


class ValueFilter(ColumnFilter):
    """Selects the rows with one of the values in the table: a queue or a worker."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ANN401
        return [(value, value) for value in distinct_values(TaskRun, self.parameter_name)]


class QueueFilter(ValueFilter):
    title = pgettext_lazy("systemtasks", "queue")
    parameter_name = "queue"


class WorkerFilter(ValueFilter):
    title = pgettext_lazy("systemtasks", "worker")
    parameter_name = "worker"


class TaskFilter(ColumnFilter):
    """Selects the runs of one SystemTask. The filter lists the first VALUE_LIMIT tasks by name."""

    title = pgettext_lazy("systemtasks", "task")
    parameter_name = "system_task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ANN401
        tasks = SystemTask.objects.only("uuid", "name", "uid").order_by("name", "uid")
        choices = [(str(task.uuid), task.full_name) for task in tasks[:VALUE_LIMIT]]
        if (value := self.value()) and value not in dict(choices):
            choices += [(str(t.uuid), t.full_name) for t in tasks.filter(uuid=self.checked(value))]
        return choices

    def checked(self, value: str) -> UUID:
        try:
            return UUID(value)
        except ValueError as error:
            raise IncorrectLookupParameters(value) from error


def _now() -> datetime:
    return datetime.now(UTC)  # not Django's, which has no offset with USE_TZ=False


class TimeFilter(SimpleListFilter):
    """Selects the rows that started in a named span, or between `from` and `until`.

    These times, and the day of today, are in Django's current time zone.
    """

    title = pgettext_lazy("systemtasks", "started")
    parameter_name = "started"
    column = "start_timestamp"
    bounds: ClassVar = {"from": "gte", "until": "lte"}
    spans: ClassVar = {
        "hour": (pgettext_lazy("systemtasks", "Past hour"), timedelta(hours=1)),
        "day": (pgettext_lazy("systemtasks", "Past 24 hours"), timedelta(days=1)),
        "today": (pgettext_lazy("systemtasks", "Today"), None),
        "week": (pgettext_lazy("systemtasks", "Past 7 days"), timedelta(days=7)),
    }

    def __init__(
        self,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,  # noqa: ANN401
        model_admin: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(request, params, model, model_admin)
        for bound in self.bounds:
            if value := params.pop(bound, [""])[-1]:
                self.used_parameters[bound] = value

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, *self.bounds]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ANN401
        return [(key, text) for key, (text, _) in self.spans.items()]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if value := self.value():
            queryset = queryset.filter(**{f"{self.column}__gte": self._start(value)})
        for bound, lookup in self.bounds.items():
            if value := self.used_parameters.get(bound):
                queryset = queryset.filter(**{f"{self.column}__{lookup}": self._moment(value)})
        return queryset

    def _start(self, value: str) -> datetime:
        if value not in self.spans:
            raise IncorrectLookupParameters(value)
        now = local(_now())
        length = self.spans[value][1]
        return now - length if length else now.replace(hour=0, minute=0, second=0, microsecond=0)

    def _moment(self, value: str) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            zone = timezone.get_current_timezone()
            return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise IncorrectLookupParameters(value) from error


class RunTimeFilter(TimeFilter):
    """Selects the runs that started in a span, by the database's clock."""

    column = "sort_timestamp"
