"""Django's ModelBackend, with one query for a user's permissions instead of two."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import CharField, Func, OuterRef, QuerySet

from .users import has_permission_fields


class OneQueryModelBackend(ModelBackend):
    """A backend for AUTHENTICATION_BACKENDS that reads all permissions of a user at once.

    Every request to the API or the admin checks permissions.
    """

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:  # noqa: ANN401
        """Return the user's own permissions and those of the user's groups, as `app.codename`."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if user_obj.is_superuser or not has_permission_fields():
            return super().get_all_permissions(user_obj)
        if not hasattr(user_obj, "all_permissions"):
            user_obj.all_permissions = set(permissions_of(user_obj.pk))
        permissions: set[str] = user_obj.all_permissions
        return permissions


def permissions_of(user: Any) -> "QuerySet[Any, str]":  # noqa: ANN401 - a key, or an expression
    """Return a user's own permissions and those of the user's groups, as `app.codename`.

    `user` is a primary key, or an OuterRef to one. A caller that reads the permissions along with
    the user stores them as a set in the user's `all_permissions`: OneQueryModelBackend takes them
    from there. The user model must have the fields of PermissionsMixin.
    """
    if isinstance(user, OuterRef):
        user = OuterRef(user)  # it is two queries away from the keys
    keys = _keys(user, "user_permissions").union(_keys(user, "groups__permissions"), all=True)
    name = Func(
        "content_type__app_label",
        "codename",
        template="(%(expressions)s)",
        arg_joiner=" || '.' || ",
        output_field=CharField(),
    )
    permissions: QuerySet[Any, str] = (
        Permission.objects.order_by().filter(pk__in=keys.order_by()).values_list(name, flat=True)
    )
    return permissions


def _keys(user: Any, permissions: str) -> "QuerySet[Any, Any]":  # noqa: ANN401 - as above
    # From the user to the permissions: the way back may have another name in each model, or none.
    users = get_user_model()._base_manager.order_by().filter(pk=user)
    return users.filter(**{f"{permissions}__isnull": False}).values_list(permissions, flat=True)
