"""Template tags and filters for the admin.

django-unfold imports every tag library while its own admin is still being imported, so nothing here
may import `admin_parts.base`, even indirectly.
"""

from django import template
from django.apps import apps
from django.conf import settings
from django.template import Context
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from systemtasks.admin_parts.cells import ago, badge, breakable, started, which_one
from systemtasks.admin_parts.list_bar import Bar
from systemtasks.admin_parts.menu import Link, menu_links
from systemtasks.admin_parts.rows import RowList
from systemtasks.admin_parts.text import duration_text, first_line, pretty, time_text

register = template.Library()

for function in (
    ago,
    badge,
    breakable,
    duration_text,
    first_line,
    pretty,
    started,
    time_text,
    which_one,
):
    register.filter(function.__name__, function)


@register.simple_tag
def is_unfold() -> bool:
    """Return True if the pages have the look of django-unfold."""
    return apps.is_installed("unfold")


@register.simple_tag
def has_sidebar() -> bool:
    """Return True if the project's settings of django-unfold say what is in its sidebar."""
    sidebar = getattr(settings, "UNFOLD", {}).get("SIDEBAR", {})
    return is_unfold() and bool(sidebar.get("navigation"))


@register.simple_tag(takes_context=True)
def menu(context: Context) -> list[Link]:
    """Return the links to our pages."""
    request = context["request"]
    return menu_links(request, getattr(request, "current_app", None) or "admin")


@register.simple_tag
def title_tag() -> str:
    """Return the tag for the title in a page: there is one h1, and django-unfold has it above."""
    return "p" if apps.is_installed("unfold") else "h1"


@register.simple_tag
def admin_style() -> SafeString:
    """Return the link to our stylesheet."""
    return format_html('<link href="{}" rel="stylesheet">', static("systemtasks/admin.css"))


@register.simple_tag
def admin_script(name: str = "admin.js") -> SafeString:
    """Return a script of ours: the one of all pages, or another."""
    return format_html('<script src="{}" defer></script>', static(f"systemtasks/{name}"))


@register.simple_tag
def list_bar(cl: RowList) -> Bar:
    """Return what a list shows."""
    return Bar(cl, title_tag())
