"""Keep the service's tables apart from those of a project in the same database.

The schema SERVICE_SCHEMA holds what only this service uses: users, tokens, sessions, permissions,
and its record of migrations. The tables of the app `systemtasks` are outside of it, so that other
connections find them, too: a project's workers write them.

At run time, a connection searches the service's schema first, and then the others. Migrations use
two more aliases, which `manage.py migrate` makes. Each of them searches only one of the two places.
"""

from typing import Any

SERVICE = "service"
"""The alias whose connections search the service's own schema only."""

SHARED = "shared"
"""The alias whose connections search every schema but the service's own."""


class Router:
    """Assigns each app to one of the two aliases of migrations."""

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:  # noqa: ANN401 - Django's hints
        """Return True or False for the two aliases of migrations, and None for any other."""
        if db == SHARED:
            return app_label == "systemtasks"
        if db == SERVICE:
            return app_label != "systemtasks"
        return None
