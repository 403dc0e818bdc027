"""The base class of the admins: read-only, with or without django-unfold."""

from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from systemtasks.admin_parts.counting import BoundedPaginator
from systemtasks.admin_parts.rows import RowList
from systemtasks.admin_parts.text import with_unseen_shown

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    SkinnedAdmin = ModelAdmin[Any]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as SkinnedAdmin
else:
    from django.contrib.admin import ModelAdmin as SkinnedAdmin


class ReadOnlyAdmin(SkinnedAdmin):
    """An admin in which nothing can be added, changed or deleted."""

    actions = None
    list_per_page = 50
    list_fullwidth = True  # django-unfold's
    paginator = BoundedPaginator
    show_full_result_count = False
    counts_statuses = False  # counting millions of rows takes too long
    change_list_template = "systemtasks/list.html"

    class Media:
        css: ClassVar = {"all": ("systemtasks/admin.css",)}
        js = ("systemtasks/admin.js",)

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows with only the columns that the list shows."""
        raise NotImplementedError

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the template context that the page of this row needs in addition to the row."""
        raise NotImplementedError

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:  # noqa: ANN401
        return RowList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:  # noqa: ANN401
        """Return the row, or None. Ignore an empty `from_field`, which names no field."""
        return super().get_object(request, object_id, from_field or None)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return _with_unseen_shown(super().changelist_view(request, extra_context))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        page = super().changeform_view(request, object_id, form_url, extra_context)
        return _with_unseen_shown(page)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,  # noqa: ANN401
    ) -> HttpResponse:
        # The name is a text, because django-unfold capitalises an object's name.
        context |= {"row": obj, "original": str(obj), "title": str(obj), "subtitle": None}
        context |= self.page_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)


def _with_unseen_shown(page: HttpResponse) -> HttpResponse:
    """Make visible the characters that would change how the page looks.

    They may be in any text that a task logs, so this replaces them in the whole page.
    """
    if isinstance(page, TemplateResponse):
        page.add_post_render_callback(_show_unseen)
    return page


def _show_unseen(page: HttpResponse) -> None:
    page.content = with_unseen_shown(page.content.decode()).encode()
