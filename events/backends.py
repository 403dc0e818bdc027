"""Django's ModelBackend, with one query for a user's permissions where it takes two."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import CharField, Func, QuerySet


class OneQueryModelBackend(ModelBackend):
    """For AUTHENTICATION_BACKENDS: every request to the API or the admin checks permissions."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:  # noqa: ANN401
        """Return the permissions, as `app.codename`, that the user has directly or by a group."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if user_obj.is_superuser:
            return super().get_all_permissions(user_obj)
        if not hasattr(user_obj, "held_permissions"):
            user_obj.held_permissions = set(permissions_of(user_obj.pk))
        held: set[str] = user_obj.held_permissions
        return held


def permissions_of(user: Any) -> "QuerySet[Any, str]":  # noqa: ANN401 - a key, or an expression
    """Return the permissions, as `app.codename`, of a user: by primary key, or an OuterRef of it.

    Whoever reads them along with a user leaves them as a set in its `held_permissions`, where
    OneQueryModelBackend looks for them.
    """
    fields: Any = (
        get_user_model()._meta.get_field(name) for name in ("user_permissions", "groups")
    )
    directly, by_group = (field.related_query_name() for field in fields)
    name = Func(
        "content_type__app_label",
        "codename",
        template="(%(expressions)s)",
        arg_joiner=" || '.' || ",
        output_field=CharField(),
    )
    names = Permission.objects.order_by().values_list(name, flat=True)
    held = names.filter(**{directly: user}).union(
        names.filter(**{f"group__{by_group}": user}), all=True
    )
    return held.order_by()  # from Django 6.1 on, a union has the model's ordering
