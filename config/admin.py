"""Users, groups and tokens in django-unfold's look, which their own admins do not have."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from knox.admin import AuthTokenAdmin
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

for model in (User, Group, AuthToken):
    admin.site.unregister(model)


@admin.register(User)
class UnfoldUserAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class UnfoldGroupAdmin(GroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


@admin.register(AuthToken)
class UnfoldAuthTokenAdmin(AuthTokenAdmin, ModelAdmin):  # type: ignore[misc]
    list_display = ("token_key", "user", "created", "expiry")
