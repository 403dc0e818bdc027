"""Template tags and filters for the admin.

django-unfold imports every tag library while its own admin is still being imported, so nothing here
may import `admin_parts.base`, even indirectly.
"""

from typing import Any

from django import template
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ORDER_VAR, SEARCH_VAR
from django.utils import timezone
from django.utils.translation import pgettext

from systemtasks.admin_parts.cells import ago, badge, started, which_one
from systemtasks.admin_parts.filters import StatusFilter, TimeFilter
from systemtasks.admin_parts.rows import RowList
from systemtasks.admin_parts.text import duration_text, first_line, pretty, time_text
from systemtasks.states import Status

register = template.Library()

PILLS = ("", Status.ERROR, Status.WARNING, Status.SUCCESSFUL, Status.UNKNOWN)
SHOWN_FILTERS = ("started", "system_task")

for function in (ago, badge, duration_text, first_line, pretty, started, time_text, which_one):
    register.filter(function.__name__, function)


@register.inclusion_tag("systemtasks/filter_bar.html")
def filter_bar(cl: RowList) -> dict[str, Any]:
    """Return the search, the filters and a link for each status, for the form above the list."""
    status = next(spec for spec in cl.filter_specs if isinstance(spec, StatusFilter))
    time = next(spec for spec in cl.filter_specs if isinstance(spec, TimeFilter))
    others = [
        spec
        for spec in cl.filter_specs
        if isinstance(spec, SimpleListFilter) and spec is not status
    ]
    hidden = [spec for spec in others if spec.parameter_name not in SHOWN_FILTERS]
    bounds = [
        (bound, label, time.used_parameters.get(bound, ""))
        for bound, label in (
            ("from", pgettext("systemtasks", "Started from")),
            ("until", pgettext("systemtasks", "Started until")),
        )
    ]
    return {
        "cl": cl,
        "search_var": SEARCH_VAR,
        "status": status.value() or "",
        "pills": [_pill(cl, value) for value in PILLS],
        "shown": [spec for spec in others if spec not in hidden],
        "hidden": hidden,
        "bounds": bounds,
        "zone": timezone.get_current_timezone_name(),
        "is_open": any(spec.value() for spec in hidden) or any(value for *_, value in bounds),
        "is_narrowed": bool(cl.query) or cl.has_active_filters,
        **_order(cl),
    }


def _pill(cl: RowList, value: str) -> tuple[str, str, str, int | None]:
    counts = cl.status_counts
    url = cl.get_query_string({StatusFilter.parameter_name: value or None})
    if not value:
        return "", pgettext("systemtasks", "All"), url, sum(counts.values()) if counts else None
    return value, str(Status(value).label), url, counts.get(value, 0) if counts else None


def _order(cl: RowList) -> dict[str, Any]:
    order = cl.params.get(ORDER_VAR, "")
    failures_first = str(cl.list_display.index("badge"))
    is_first = order == failures_first
    return {
        "order_var": ORDER_VAR,
        "order": order,
        "failures_first": is_first,
        "failures_first_url": cl.get_query_string(
            {ORDER_VAR: None if is_first else failures_first}
        ),
    }
