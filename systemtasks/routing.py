"""Route this app to its database, if that is not the default one."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from systemtasks.conf import conf

APP = "systemtasks"


class Router:
    """Reads, writes and migrates this app in SYSTEMTASKS['DATABASE']; for DATABASE_ROUTERS."""

    def db_for_read(self, model: type[Model], **_: Any) -> str | None:  # noqa: ANN401 - Django's hints
        """Return the alias for this app's models, and None for others."""
        return conf().DATABASE if model._meta.app_label == APP else None

    def db_for_write(self, model: type[Model], **_: Any) -> str | None:  # noqa: ANN401 - Django's hints
        """Return the alias for this app's models, and None for others."""
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:  # noqa: ANN401 - Django's hints
        """Return True if this is the database for this app's tables, and None for other apps.

        In the default database, other routers decide: that of django-tenants knows in which schemas
        the tables belong.
        """
        if app_label != APP:
            return None
        if db != conf().DATABASE:
            return False
        return None if db == DEFAULT_DB_ALIAS else True
