"""Make the groups of the roles: viewer, operator and administrator."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from systemtasks.admin_parts.roles import ROLES, make_groups


class Command(BaseCommand):
    help = (
        "Make the groups of the roles viewer, operator and administrator, or bring them up to "
        "date. With a user and a role, put the user into that group, as a staff user."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", nargs="?", help="the name of a user")
        parser.add_argument("role", nargs="?", choices=ROLES)

    def handle(self, *_: Any, user: str | None, role: str | None, **__: Any) -> None:  # noqa: ANN401
        if user and not role:
            raise CommandError(f"Name a role as well: {', '.join(ROLES)}.")
        member = _find(user) if user else None
        made = make_groups()
        if not any(permissions for _, permissions in made):
            raise CommandError("There are no permissions yet; run `manage.py migrate` first.")
        for group, permissions in made:
            self.stdout.write(f"{group.name}: {len(permissions)} permissions")
        if member:
            member.groups.add(made[ROLES.index(role or "")][0])
            member.is_staff = True
            member.save(update_fields=["is_staff"])
            self.stdout.write(f"{user} is {role}.")


def _find(name: str) -> Any:  # noqa: ANN401 - the project's own class
    users = get_user_model()
    try:
        return users._default_manager.get_by_natural_key(name)
    except users.DoesNotExist:
        raise CommandError(f"There is no user {name!r}.") from None
