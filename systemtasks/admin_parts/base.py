"""The base class of the admins: read-only, with or without django-unfold."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.translation import pgettext

from systemtasks.admin_parts.counting import BoundedPaginator
from systemtasks.admin_parts.export import FORMATS, Column
from systemtasks.admin_parts.export import response as export
from systemtasks.admin_parts.rows import RowList, UnreadRowList
from systemtasks.admin_parts.saved_views import delete_view, save_view
from systemtasks.admin_parts.text import with_unseen_shown

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    SkinnedAdmin = ModelAdmin[Any]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as SkinnedAdmin
else:
    from django.contrib.admin import ModelAdmin as SkinnedAdmin

LIVE_HEADER = "X-Systemtasks-Live"
"""The header by which the script of a page asks for the parts of it that change by themselves."""


class ReadOnlyAdmin(SkinnedAdmin):
    """An admin in which nothing can be added, changed or deleted."""

    actions = None
    list_per_page = 50
    list_max_show_all = 0
    list_fullwidth = True  # django-unfold's
    paginator = BoundedPaginator
    show_full_result_count = False
    counts_statuses = False  # counting millions of rows takes too long
    pills: "ClassVar[tuple[tuple[Any, dict[str, str]], ...]]" = ()
    """The filters that are one click away, each a text and its parameters."""
    newest_first: ClassVar[tuple[str, ...]] = ()
    """The columns that the first click sorts in descending order."""
    sorted_by: ClassVar[tuple[str, str]] = ("started", "desc")
    """The column by which the list is sorted at first, and in which direction."""
    change_list_template = "systemtasks/list.html"
    live_list_template = "systemtasks/list_content.html"

    class Media:
        css: ClassVar = {"all": ("systemtasks/admin.css",)}
        js = ("systemtasks/admin.js",)

    def only_shown(self, rows: "QuerySet[Any]") -> "QuerySet[Any]":
        """Return the rows with only the columns that the list shows."""
        return rows

    def complete(self, rows: list[Any]) -> None:
        """Read what the list shows of the rows of one page and is not in their table."""

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the template context that the page of this row needs in addition to the row."""
        raise NotImplementedError

    def select_url(self, request: HttpRequest) -> str:
        """Return the address that gets the rows that are selected, or "" if none can be."""
        return ""

    def search_hint(self, cl: RowList) -> dict[str, str]:
        """Return what a list says of its search: a text, perhaps with a link and its address."""
        return {}

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:  # noqa: ANN401
        match = request.resolver_match
        return UnreadRowList if match and match.url_name == self._export_name else RowList

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

    @property
    def _export_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_export"

    def get_urls(self) -> list[Any]:
        """Return the URLs, whose views say in the admin's look what the user may not see."""
        view = self.admin_site.admin_view(self.export_view)
        save, delete = (
            self.admin_site.admin_view(one) for one in (self.save_view_view, self.delete_view_view)
        )
        names = f"{self.opts.app_label}_{self.opts.model_name}"
        urls = [
            path("export.<slug:kind>", view, name=self._export_name),
            path("views/", save, name=f"{names}_save_view"),
            path("views/<int:pk>/delete/", delete, name=f"{names}_delete_view"),
            *super().get_urls(),
        ]
        for url in urls:
            url.callback = self.explaining(url.callback)
        return urls

    def save_view_view(self, request: HttpRequest) -> HttpResponseBase:
        """Save what the list is filtered by under a name. Whoever may view the list may do it."""
        self._check_post(request)
        return save_view(request, str(self.opts.model_name))

    def delete_view_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Delete a saved view."""
        self._check_post(request)
        return delete_view(request, str(self.opts.model_name), pk)

    def _check_post(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            raise Http404

    def explaining(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view, which then says in the admin's look what cannot be seen, and why."""

        def explaining(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            try:
                return view(request, *args, **kwargs)
            except PermissionDenied:
                return forbidden(request, self.admin_site.each_context(request))
            except BadRequest as error:
                return malformed(request, self.admin_site.each_context(request), str(error))

        # Django's decorators keep what they say of a view on the function.
        explaining.__dict__.update(getattr(view, "__dict__", {}))
        return explaining

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        is_live = LIVE_HEADER in request.headers
        context = {"is_live": is_live, **(extra_context or {})}
        page = super().changelist_view(request, context)
        if is_live and isinstance(page, TemplateResponse):
            page.template_name = self.live_list_template
        patch_vary_headers(page, [LIVE_HEADER])
        return with_unseen_shown_in(page)

    def live_response(
        self, request: HttpRequest, context: dict[str, Any], whole: str, part: str
    ) -> HttpResponse:
        """Return a page that is no list and refreshes itself, or what its script asks for."""
        template = part if LIVE_HEADER in request.headers else whole
        request.current_app = self.admin_site.name
        page = TemplateResponse(request, f"systemtasks/{template}", context)
        patch_vary_headers(page, [LIVE_HEADER])
        return with_unseen_shown_in(page)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        page = super().changeform_view(request, object_id, form_url, extra_context)
        return with_unseen_shown_in(page)

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
        list_name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        context["list_url"] = reverse(f"{self.admin_site.name}:{list_name}")
        context |= self.page_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def export_columns(self) -> list[Column]:
        """Return the columns of an export: each a name, and a function of a row."""
        raise NotImplementedError

    def exported(self, rows: "QuerySet[Any]") -> Iterable[Any]:
        """Return the rows of an export, which may be many."""
        return rows

    def export_view(self, request: HttpRequest, kind: str) -> HttpResponseBase:
        """Stream the rows that the filters in the address leave. Whoever may view may export."""
        if kind not in FORMATS:
            raise Http404
        if not self.has_view_permission(request):
            raise PermissionDenied
        cl: Any = self.get_changelist_instance(request)
        if cl.is_refused or any(chip.is_wrong for chip in cl.chips()):
            raise BadRequest(
                pgettext("systemtasks", "A filter in the address is wrong, so nothing is exported.")
            )
        name = f"{self.opts.model_name}s-{timezone.now():%Y-%m-%d-%H%M}"
        return export(self.exported(cl.queryset), self.export_columns(), name, kind)


def forbidden(request: HttpRequest, context: dict[str, Any]) -> TemplateResponse:
    """Return the page that says, in the look of the admin, that the user may not see another."""
    context |= {"title": pgettext("systemtasks", "You may not see this page"), "subtitle": None}
    return TemplateResponse(request, "systemtasks/forbidden.html", context, status=403)


def malformed(request: HttpRequest, context: dict[str, Any], text: str) -> TemplateResponse:
    """Return the page that says, in the look of the admin, what is wrong with a request."""
    title = pgettext("systemtasks", "This address cannot be shown")
    context |= {"title": title, "subtitle": None, "text": text}
    return TemplateResponse(request, "systemtasks/malformed.html", context, status=400)


def with_unseen_shown_in(page: HttpResponse) -> HttpResponse:
    """Make visible the characters that would change how the page looks.

    They may be in any text that a task logs, so this replaces them in the whole page.
    """
    if isinstance(page, TemplateResponse):
        page.add_post_render_callback(_show_unseen)
    return page


def _show_unseen(page: HttpResponse) -> None:
    page.content = with_unseen_shown(page.content.decode()).encode()
