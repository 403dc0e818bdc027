"""The sidebar of the service: what somebody on call needs first, and users and tokens last."""

from contextlib import suppress
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst

from systemtasks.admin_parts.menu import menu_links


def _name(model: type[Model]) -> str:
    return str(capfirst(str(model._meta.verbose_name_plural)))


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of links to pages that the admin site has, in django-unfold's terms."""
    site_name = getattr(request, "current_app", None) or "admin"
    ours = [
        {"title": link.title, "icon": link.icon, "link": link.url, "active": link.is_current}
        for link in menu_links(request, site_name, home=reverse("admin:index"))
    ]
    others = []
    for title, icon, viewname, permission in (
        (_name(User), "person", "auth_user", "auth.view_user"),
        (_name(Group), "group", "auth_group", "auth.view_group"),
        ("Tokens", "key", "knox_authtoken", "knox.view_authtoken"),
    ):
        if not request.user.has_perm(permission):
            continue
        with suppress(NoReverseMatch):
            link = reverse(f"admin:{viewname}_changelist", current_app=site_name)
            active = request.get_full_path() == link
            others.append({"title": title, "icon": icon, "link": link, "active": active})
    groups: list[dict[str, Any]] = [{"items": ours}, {"items": others, "separator": True}]
    return [group for group in groups if group["items"]]
