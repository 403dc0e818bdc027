"""Django's ModelBackend, with one query for a user's permissions instead of two."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import CharField, Func, QuerySet


class OneQueryModelBackend(ModelBackend):
    """A backend for AUTHENTICATION_BACKENDS that reads all permissions of a user at once.

    Every request to the API or the admin checks permissions.
    """

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:  # noqa: ANN401
        """Return the user's own permissions and those of the user's groups, as `app.codename`."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if user_obj.is_superuser:
            return super().get_all_permissions(user_obj)
        if not hasattr(user_obj, "all_permissions"):
            user_obj.all_permissions = set(permissions_of(user_obj.pk))
        permissions: set[str] = user_obj.all_permissions
        return permissions


def permissions_of(user: Any) -> "QuerySet[Any, str]":  # noqa: ANN401 - a key, or an expression
    """Return a user's own permissions and those of the user's groups, as `app.codename`.

    `user` is a primary key, or an OuterRef to one. A caller that reads the permissions along with
    the user stores them as a set in the user's `all_permissions`: OneQueryModelBackend takes them
    from there.
    """
    fields: Any = (
        get_user_model()._meta.get_field(name) for name in ("user_permissions", "groups")
    )
    of_user, of_group = (field.related_query_name() for field in fields)
    name = Func(
        "content_type__app_label",
        "codename",
        template="(%(expressions)s)",
        arg_joiner=" || '.' || ",
        output_field=CharField(),
    )
    names = Permission.objects.order_by().values_list(name, flat=True)
    permissions = names.filter(**{of_user: user}).union(
        names.filter(**{f"group__{of_group}": user}), all=True
    )
    return permissions.order_by()  # from Django 6.1 on, a union has the model's ordering
