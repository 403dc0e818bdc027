"""List our pages in the order in which somebody on call needs them, in every look of the admin."""

from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.translation import pgettext_lazy

from systemtasks.models import SystemTask
from systemtasks.states import State

TASKS, RUNS = "systemtasks.view_systemtask", "systemtasks.view_taskrun"

PAGES: tuple[tuple[str, Any, str, str, str, tuple[str, ...]], ...] = (
    ("Home", pgettext_lazy("systemtasks", "Home"), "home", "home", "", (TASKS,)),
    ("Failing", pgettext_lazy("systemtasks", "Failing"), "error", "home", "#failing", (TASKS,)),
    (
        "Running", pgettext_lazy("systemtasks", "Running"), "play_circle", "taskrun_changelist",
        f"?state={State.RUNNING}", (RUNS,),
    ),
    ("Queues", pgettext_lazy("systemtasks", "Queues"), "stacks", "home", "#queues", (TASKS, RUNS)),
    (
        "Workers", pgettext_lazy("systemtasks", "Workers"), "memory", "home", "#workers",
        (TASKS, RUNS),
    ),
    (
        "SystemTask", pgettext_lazy("systemtasks", "Tasks"), "checklist",
        "systemtask_changelist", "", (TASKS,),
    ),
    ("TaskRun", pgettext_lazy("systemtasks", "Runs"), "list", "taskrun_changelist", "", (RUNS,)),
    (
        "ScheduleEntry", pgettext_lazy("systemtasks", "Schedule"), "schedule",
        "scheduleentry_changelist", "", (TASKS,),
    ),
)  # fmt: skip
"""The pages: each a name, a title, an icon, a URL's name, the rest of the URL, and permissions."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a page, or to a part of one."""

    name: str
    title: str
    icon: str
    """The name of one of Google's Material Symbols, which django-unfold has."""
    url: str
    is_current: bool
    """True if this is the page of the request. A part of a page is never the current one."""


def menu_links(request: HttpRequest, site_name: str, home: str = "") -> list[Link]:
    """Return the links to our pages that the admin site has and that the user may see.

    `home` is another address of the home page, if the site has one.
    """
    found = []
    for name, title, icon, viewname, rest, permissions in PAGES:
        if not all(map(request.user.has_perm, permissions)):
            continue
        try:
            own = reverse(f"admin:systemtasks_{viewname}", current_app=site_name)
        except NoReverseMatch:
            continue
        url = home or own if viewname == "home" else own
        is_current = request.get_full_path() in (url + rest, own + rest)
        found.append(Link(name, str(title), icon, url + rest, is_current))
    return found


def extend_app_list(site: AdminSite) -> None:
    """Let the site's list of apps have our pages, in our order, in place of our models alone.

    Django has no hook for it: what it lists are models, by their names.
    """
    if getattr(site, "has_pages_of_systemtasks", False):
        return
    listed = site.get_app_list

    def get_app_list(request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps: list[Any] = listed(request, app_label)
        for app in apps:
            if app["app_label"] == SystemTask._meta.app_label:
                app["models"] = _with_pages(app["models"], menu_links(request, site.name))
        return apps

    site.get_app_list = get_app_list  # type: ignore[method-assign]
    site.has_pages_of_systemtasks = True  # type: ignore[attr-defined]


def _with_pages(models: list[Any], links: list[Link]) -> list[Any]:
    ours = {name for name, *_ in PAGES}
    entries = [
        {
            "model": SystemTask,
            "object_name": link.name,
            "name": link.title,
            "admin_url": link.url,
            "add_url": None,
            "view_only": True,
            "perms": {"add": False, "change": False, "delete": False, "view": True},
        }
        for link in links
    ]
    return [*entries, *(one for one in models if one["object_name"] not in ours)]
