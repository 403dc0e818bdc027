"""The filters of the lists."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import pgettext, pgettext_lazy

from systemtasks.admin_parts.counting import COUNT_LIMIT, VALUE_LIMIT, values_of_runs
from systemtasks.admin_parts.errors import ErrorGroup, group_of
from systemtasks.admin_parts.text import local, time_text
from systemtasks.models import Acknowledgement, SystemTask, TaskRun
from systemtasks.states import UNFINISHED, State, Status

Choices = Iterable[tuple[str, Any]]
Rows = QuerySet[Any]

SHORT = timedelta(hours=25)
"""The span of time in which what no index finds is searched: a day, which may have an hour more."""


class WrongValueError(ValueError):
    """A value in the address that a filter does not have."""


class ListFilter(SimpleListFilter):
    """A filter of a list, by parameters in the list's address.

    The values that it offers are read only if the page shows them. A value that it does not have
    leaves no row, and is in `wrong`.
    """

    parameter_name: str
    extra_parameters: ClassVar[tuple[str, ...]] = ()
    is_offered: ClassVar[bool] = True
    """False if there is no field for it among the filters, since links lead to it."""

    def __init__(
        self,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,  # noqa: ANN401
        model_admin: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(request, params, model, model_admin)
        self.wrong: set[str] = set()
        for name in self.extra_parameters:
            if value := params.pop(name, [""])[-1]:
                self.used_parameters[name] = value

    @classmethod
    def parameters(cls) -> list[str]:
        """Return the names of its parameters."""
        return [cls.parameter_name, *cls.extra_parameters]

    def expected_parameters(self) -> list[str | None]:
        return [*self.parameters()]

    def has_output(self) -> bool:
        return True

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ANN401
        return ()

    @cached_property
    def offered(self) -> list[tuple[str, Any]]:
        """Return the values to choose from, each with its text."""
        return list(self.choose_from())

    def choose_from(self) -> Choices:
        """Return the values to choose from, each with its text."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        for name in self.parameters():
            if value := self.used_parameters.get(name):
                try:
                    queryset = self.narrowed(queryset, name, value)
                except WrongValueError:
                    self.wrong.add(name)
                    queryset = queryset.none()
        return queryset

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        """Return the rows that this parameter leaves. Raise WrongValueError if it is invalid."""
        raise NotImplementedError

    def in_force(self) -> list[tuple[str, str, str]]:
        """Return the parameters that are in the address: each a name, a title and a text."""
        return [
            (name, self.title_of(name), str(self.text_of(name, value)))
            for name in self.parameters()
            if (value := self.used_parameters.get(name))
        ]

    def title_of(self, name: str) -> str:
        """Return what the parameter selects by, in words."""
        return str(self.title)

    def text_of(self, name: str, value: str) -> Any:  # noqa: ANN401 - may be a lazy text
        """Return a value of the parameter in words."""
        return dict(self.offered).get(value, value)


class ColumnFilter(ListFilter):
    """Selects the rows with one value in the column `parameter_name`."""

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        return rows.filter(**{self.parameter_name: self.checked(value)})

    def checked(self, value: str) -> Any:  # noqa: ANN401 - any column's value
        """Return the value for the query. Raise WrongValueError if it is invalid."""
        if "\0" in value:
            raise WrongValueError(value)
        return value


class ChoiceFilter(ColumnFilter):
    """Selects the rows with one of a column's choices."""

    known: type[Status] | type[State]

    def choose_from(self) -> Choices:
        return self.known.choices

    def checked(self, value: str) -> str:
        if value not in self.known.values:
            raise WrongValueError(value)
        return value


class StatusFilter(ChoiceFilter):
    title = pgettext_lazy("systemtasks", "status")
    parameter_name = "status"
    known = Status
    is_offered = False  # it has the pills


ENDED, LATE = "ended", "late"
"""Values of the StateFilter that are no states: all final states, and queued ones that are late."""
LATENESS = timedelta(hours=1)
"""The time after which a run that was due, and is still queued, is late."""


class StateFilter(ChoiceFilter):
    title = pgettext_lazy("systemtasks", "state")
    parameter_name = "state"
    known = State

    def choose_from(self) -> Choices:
        return [
            *State.choices,
            (ENDED, pgettext_lazy("systemtasks", "Ended")),
            (LATE, pgettext_lazy("systemtasks", "Queued, and due for an hour")),
        ]

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        if value == ENDED:
            return rows.exclude(state__in=UNFINISHED)
        if value == LATE:
            due = Coalesce("eta_timestamp", "sent_timestamp")
            queued = rows.filter(status=Status.UNKNOWN, state=State.QUEUED, sort_timestamp=None)
            late: Rows = queued.alias(due=due).filter(due__lt=_now() - LATENESS)
            return late
        return super().narrowed(rows, name, value)


class ValueFilter(ColumnFilter):
    """Selects the runs of one queue or of one worker, and offers those of late."""

    def choose_from(self) -> Choices:
        values = values_of_runs(self.parameter_name)
        if (value := self.value()) and value not in values:
            values.append(value)
        return [(value, value) for value in values]

    def text_of(self, name: str, value: str) -> str:
        return value


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

    def choose_from(self) -> Choices:
        tasks = SystemTask.objects.only("uuid", "name", "uid").order_by("name", "uid")
        choices = [(str(task.uuid), task.full_name) for task in tasks[:VALUE_LIMIT]]
        value = self.value()
        if value and not self.wrong and value not in dict(choices):
            choices.append((value, self.text_of(self.parameter_name, value)))
        return choices

    def text_of(self, name: str, value: str) -> str:
        if self.wrong:
            return value
        task = SystemTask.objects.only("uuid", "name", "uid").filter(uuid=value).first()
        return task.full_name if task else value

    def checked(self, value: str) -> UUID:
        try:
            return UUID(value)
        except ValueError as error:
            raise WrongValueError(value) from error


class EnabledFilter(ColumnFilter):
    """Selects the entries of the schedule that are enabled, or those that are not."""

    title = pgettext_lazy("systemtasks", "enabled")
    parameter_name = "enabled"

    def choose_from(self) -> Choices:
        return (
            ("yes", pgettext_lazy("systemtasks", "yes")),
            ("no", pgettext_lazy("systemtasks", "no")),
        )

    def checked(self, value: str) -> bool:
        if value not in ("yes", "no"):
            raise WrongValueError(value)
        return value == "yes"


def _now() -> datetime:
    return datetime.now(UTC)  # not Django's, which has no offset with USE_TZ=False


class TimeFilter(ListFilter):
    """Selects the rows that started in a named span, or between `from` and `until`.

    These times, and the day of today, are in Django's current time zone.
    """

    title = pgettext_lazy("systemtasks", "started")
    parameter_name = "started"
    extra_parameters = ("from", "until")
    column = "start_timestamp"
    spans: ClassVar = {
        "hour": (pgettext_lazy("systemtasks", "Past hour"), timedelta(hours=1)),
        "day": (pgettext_lazy("systemtasks", "Past 24 hours"), timedelta(days=1)),
        "today": (pgettext_lazy("systemtasks", "Today"), None),
        "week": (pgettext_lazy("systemtasks", "Past 7 days"), timedelta(days=7)),
    }

    def choose_from(self) -> Choices:
        return [(key, text) for key, (text, _) in self.spans.items()]

    def title_of(self, name: str) -> str:
        if name == "from":
            return pgettext("systemtasks", "Started from")
        if name == "until":
            return pgettext("systemtasks", "Started until")
        return str(self.title)

    def text_of(self, name: str, value: str) -> Any:  # noqa: ANN401 - may be a lazy text
        if name == self.parameter_name:
            return super().text_of(name, value)
        return value if name in self.wrong else time_text(_moment(value))

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        if name == "until":
            return rows.filter(**{f"{self.column}__lte": _moment(value)})
        start = _moment(value) if name == "from" else self._start(value)
        return rows.filter(**{f"{self.column}__gte": start})

    def _start(self, value: str) -> datetime:
        if value not in self.spans:
            raise WrongValueError(value)
        now = local(_now())
        length = self.spans[value][1]
        return now - length if length else now.replace(hour=0, minute=0, second=0, microsecond=0)


def is_short(parameters: Mapping[str, str]) -> bool:
    """Return True if the TimeFilter with these parameters leaves about a day, or less."""
    if parameters.get(TimeFilter.parameter_name) in ("hour", "day", "today"):
        return True
    try:
        start, end = (parameters.get(name) for name in TimeFilter.extra_parameters)
        length = (_moment(end) if end else _now()) - _moment(start or "")
    except WrongValueError:
        return False
    return length <= SHORT


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        zone = timezone.get_current_timezone()
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise WrongValueError(value) from error


class AcknowledgedFilter(ListFilter):
    """Selects the failed runs that nobody has acknowledged, or those that somebody has.

    The first reads the index of failures, newest first, and looks up each in the acknowledgements.
    """

    title = pgettext_lazy("systemtasks", "acknowledged")
    parameter_name = "acknowledged"
    choices_of_it: ClassVar = (
        ("no", pgettext_lazy("systemtasks", "no, and failed")),
        ("yes", pgettext_lazy("systemtasks", "yes")),
    )

    def choose_from(self) -> Choices:
        return self.choices_of_it

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        if value == "no":
            seen = Acknowledgement.objects.filter(run=OuterRef("pk"))
            return rows.filter(~Exists(seen), status=Status.ERROR)
        if value == "yes":
            newest = Acknowledgement.objects.order_by("-timestamp").values("run")[:COUNT_LIMIT]
            return rows.filter(pk__in=newest)
        raise WrongValueError(value)


class SameErrorFilter(ListFilter):
    """Selects the runs whose error is the same as that of one run, which the value names.

    They are those that the pages of the run and of its task count.
    """

    title = pgettext_lazy("systemtasks", "same error")
    parameter_name = "same_error"
    is_offered = False

    @cached_property
    def _found(self) -> tuple[ErrorGroup | None, str]:
        """Return the group of errors, and what was looked at if that was not all."""
        try:
            run = TaskRun.objects.only("system_task_id", "exception").get(pk=UUID(self.value()))
        except (ValueError, TaskRun.DoesNotExist):
            return None, ""
        return group_of(run)

    def choose_from(self) -> Choices:
        return ()

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        group, _ = self._found
        if group is None:
            raise WrongValueError(value)
        return rows.filter(pk__in=group.runs)

    def text_of(self, name: str, value: str) -> str:
        group, bound = self._found
        if group is None:
            return value
        return f"{group.text} ({bound})" if bound else group.text


class TaskTimeFilter(TimeFilter):
    """Selects the tasks whose last run started in a span. A task that never ran has none."""

    def narrowed(self, rows: Rows, name: str, value: str) -> Rows:
        return super().narrowed(rows, name, value).filter(sort_timestamp__isnull=False)


class RunTimeFilter(TimeFilter):
    """Selects the runs that started in a span, by the database's clock."""

    column = "sort_timestamp"
