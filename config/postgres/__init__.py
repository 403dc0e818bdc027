"""The service's tables beside those of a project, in one database.

Django's own tables of this service (users, tokens, sessions, permissions, its record of
migrations) are in a schema of their own, SERVICE_SCHEMA. The tables of the app `systemtasks` are
where any other connection to the database finds them too, since a project's workers write them.

A connection at run time looks into the service's schema first, and then into the others. Migrations
run over two more aliases, each of which sees one of the two places alone; `manage.py migrate`
makes them.
"""

from typing import Any

SERVICE = "service"
"""The alias whose connections look into the service's own schema alone."""

SHARED = "shared"
"""The alias whose connections look where they do without this service."""


class Router:
    """Which app is migrated over which of the two aliases."""

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:  # noqa: ANN401 - Django's hints
        """Return False for an app whose tables are in the other place."""
        if db == SHARED:
            return app_label == "systemtasks"
        if db == SERVICE:
            return app_label != "systemtasks"
        return None
