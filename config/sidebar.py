"""The sidebar of the service: what somebody on call needs first, and users and tokens last."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst
from django.utils.translation import pgettext
from knox.models import AuthToken

HOME = "admin:systemtasks_home"
RUNS = "admin:systemtasks_taskrun_changelist"


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


TASKS_SEEN, RUNS_SEEN = _may("systemtasks.view_systemtask"), _may("systemtasks.view_taskrun")


def _name(model: type[Model]) -> str:
    return str(capfirst(str(model._meta.verbose_name_plural)))


def _both(request: HttpRequest) -> bool:
    return TASKS_SEEN(request) and RUNS_SEEN(request)


def _item(
    request: HttpRequest,
    title: str,
    icon: str,
    url: str,
    seen: Callable[[HttpRequest], bool],
    more: str = "",
) -> dict[str, Any]:
    """Return a link. A link with a fragment is never the current one.

    Raise NoReverseMatch if the admin site does not have the page.
    """
    link = reverse(url, current_app=getattr(request, "current_app", None)) + more
    return {
        "title": title,
        "icon": icon,
        "link": link,
        "permission": seen,
        "active": request.get_full_path() == link,
    }


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of links to pages that the admin site has, in django-unfold's terms."""
    tasks = "admin:systemtasks_systemtask_changelist"
    schedule = "admin:systemtasks_scheduleentry_changelist"
    ours = (
        (pgettext("systemtasks", "Home"), "home", HOME, TASKS_SEEN),
        (pgettext("systemtasks", "Failing"), "error", HOME, TASKS_SEEN, "#failing"),
        (pgettext("systemtasks", "Running"), "play_circle", RUNS, RUNS_SEEN, "?state=running"),
        (pgettext("systemtasks", "Queues"), "stacks", HOME, _both, "#queues"),
        (pgettext("systemtasks", "Workers"), "memory", HOME, _both, "#workers"),
        (pgettext("systemtasks", "Tasks"), "checklist", tasks, TASKS_SEEN),
        (pgettext("systemtasks", "Runs"), "list", RUNS, RUNS_SEEN),
        (pgettext("systemtasks", "Schedule"), "schedule", schedule, TASKS_SEEN),
    )
    others = (
        (_name(User), "person", "admin:auth_user_changelist", _may("auth.view_user")),
        (_name(Group), "group", "admin:auth_group_changelist", _may("auth.view_group")),
        (_name(AuthToken), "key", "admin:knox_authtoken_changelist", _may("knox.view_authtoken")),
    )
    groups: list[dict[str, Any]] = [{"items": []}, {"items": [], "separator": True}]
    for group, links in zip(groups, (ours, others), strict=True):
        for link in links:
            with suppress(NoReverseMatch):
                group["items"].append(_item(request, *link))
    return [group for group in groups if group["items"]]
