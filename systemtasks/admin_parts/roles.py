"""The roles of those who use the admin, as groups with Django's own permissions."""

from collections.abc import Iterable

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q

from systemtasks.models import SystemTask

APP = SystemTask._meta.app_label
ACTIONS = ("run", "acknowledge")
"""The permissions of this app whose names begin so change something, and are an operator's."""

ROLES = ("viewer", "operator", "administrator")


def group_name(role: str) -> str:
    """Return the name of the group of a role."""
    return f"System Tasks {role}"


def permissions_of(role: str) -> Iterable[Permission]:
    """Return the permissions of a role. Each role has those of the role before it.

    An administrator also manages users, groups and tokens, where the project has them.
    """
    allowed = Q(content_type__app_label=APP, codename__startswith="view_")
    if role != "viewer":
        for action in ACTIONS:
            allowed |= Q(content_type__app_label=APP, codename__startswith=f"{action}_")
    if role == "administrator":
        allowed |= Q(content_type__app_label=APP, codename="share_savedview")
        allowed |= Q(content_type__app_label="auth", content_type__model__in=("user", "group"))
        allowed |= Q(content_type__model__in=("authtoken", "tokengrant"))
    return Permission.objects.filter(allowed)


@transaction.atomic
def make_groups() -> list[tuple[Group, list[Permission]]]:
    """Make the group of each role, or bring it up to date, and return it with its permissions.

    A group that is there keeps its members, and the permissions that somebody has added to it.
    """
    made = []
    for role in ROLES:
        group, _ = Group.objects.get_or_create(name=group_name(role))
        permissions = list(permissions_of(role))
        group.permissions.add(*permissions)
        made.append((group, permissions))
    return made
