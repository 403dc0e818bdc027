"""The admins of users, groups and tokens, with the look of django-unfold."""

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from knox.admin import AuthTokenAdmin
from knox.models import AuthToken
from unfold.admin import ModelAdmin, StackedInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from events.models import TokenGrant, scope_text

for model in (User, Group, AuthToken):
    admin.site.unregister(model)


class WithoutInitialValues:
    """A mixin for an admin. Its form to add a row takes no values from the page's address.

    Django would put them into the form unchecked.
    """

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {}


@admin.register(User)
class UnfoldUserAdmin(WithoutInitialValues, UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class UnfoldGroupAdmin(WithoutInitialValues, GroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


class GrantInline(StackedInline):
    """Show what the token allows, on the token's page."""

    model = TokenGrant
    can_delete = False
    readonly_fields = ("last_used",)


@admin.register(AuthToken)
class UnfoldAuthTokenAdmin(WithoutInitialValues, AuthTokenAdmin, ModelAdmin):  # type: ignore[misc]
    list_display = ("token_key", "user", "created", "expiry", "scope", "rate", "last_used")  # type: ignore[assignment]
    list_select_related = ("user", "grant")
    list_display_links = ("token_key",)
    readonly_fields = ("token_key", "created")
    inlines = (GrantInline,)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        # The same word in English and German; knox's own name is English in each language.
        return super().changelist_view(request, {"title": "Tokens", **(extra_context or {})})

    def get_fields(self, request: HttpRequest, obj: AuthToken | None = None) -> tuple[str, ...]:
        """Return the fields of the form. The digest is in none: it tells nobody anything."""
        return ("token_key", "user", "created", "expiry") if obj else ("user", "expiry")

    def get_readonly_fields(
        self, request: HttpRequest, obj: AuthToken | None = None
    ) -> tuple[str, ...]:
        return self.readonly_fields if obj else ()

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,  # noqa: ANN401
    ) -> HttpResponse:
        """Name the page after the key of the token. Its own name is the digest."""
        if obj:
            context |= {"original": _name(obj), "title": _name(obj), "subtitle": None}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ANN401
        """Save the token, without the message of knox's own class: a cookie would store it."""
        ModelAdmin.save_model(self, request, obj, form, change)
        if not change:
            obj.new_token = form.token

    def response_add(
        self,
        request: HttpRequest,
        obj: Any,  # noqa: ANN401 - a token that save_model has saved
        post_url_continue: str | None = None,
    ) -> HttpResponse:
        """Respond with a page that shows the new token."""
        list_url = request.build_absolute_uri(reverse("systemtasks_api:system-task-list"))
        context = {
            **self.admin_site.each_context(request),
            "title": _name(obj),
            "opts": self.opts,
            "token": obj.new_token,
            "user_of_token": obj.user,
            "page_of_token": reverse("admin:knox_authtoken_change", args=[obj.pk]),
            "curl": f"curl --header 'Authorization: Bearer {obj.new_token}' {list_url}",
        }
        return TemplateResponse(request, "config/new_token.html", context)

    @admin.display(description="grant")
    def scope(self, token: AuthToken) -> str:
        return scope_text(_grant(token))

    @admin.display(description="requests a minute")
    def rate(self, token: AuthToken) -> int | None:
        return grant.rate if (grant := _grant(token)) else None

    @admin.display(description="last used")
    def last_used(self, token: AuthToken) -> datetime | None:
        return grant.last_used if (grant := _grant(token)) else None


def _name(token: AuthToken) -> str:
    return f"Token {token.token_key} of {token.user}"


def _grant(token: AuthToken) -> TokenGrant | None:
    """Return the token's grant, or None if it has none."""
    return getattr(token, "grant", None)
