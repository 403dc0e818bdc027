"""Ask the project's user model, which may be Django's, an extension of it, or one of its own."""

from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import FieldDoesNotExist


@cache
def user_columns() -> list[str]:
    """Return the columns of the user that every request reads, in the model's order.

    Django loads the others when they are first accessed.
    """
    model: Any = get_user_model()
    names = {model._meta.pk.name, model.USERNAME_FIELD, "is_active", "is_superuser"}
    return [field.attname for field in model._meta.concrete_fields if field.name in names]


@cache
def has_permission_fields() -> bool:
    """Return True if users have the fields `user_permissions` and `groups` of PermissionsMixin."""
    return _leads_to("user_permissions", Permission) and _leads_to("groups", Group)


def _leads_to(name: str, model: type) -> bool:
    field = _field(name)
    return field is not None and field.many_to_many and field.related_model is model


def _field(name: str) -> Any:  # noqa: ANN401 - one of many types
    try:
        return get_user_model()._meta.get_field(name)
    except FieldDoesNotExist:
        return None
