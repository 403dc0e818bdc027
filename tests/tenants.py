"""A database with a schema for each tenant, and a backend that searches the current tenant's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connections
from django.db.backends.postgresql import base

from systemtasks.models import SystemTask

TABLE = SystemTask._meta.db_table


class TenantWrapper(base.DatabaseWrapper):
    """Sets the search_path whenever it makes a cursor, as the backend of django-tenants does."""

    schema = "public"
    """The schema of the tenant whose request or task it is."""

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]
        cursor.execute(f"SET search_path = {self.schema}, public")
        return cursor


@contextmanager
def tenant_backend() -> Iterator[TenantWrapper]:
    """Use the backend in this thread. There is one tenant, acme, with its own table of tasks."""
    plain: Any = connections["default"]
    own = TenantWrapper(plain.settings_dict, "default")
    parameters = {**plain.get_connection_params(), "cursor_factory": psycopg.Cursor}
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute("CREATE SCHEMA acme")
        other.execute(f"CREATE TABLE acme.{TABLE} (LIKE public.{TABLE} INCLUDING ALL)")
        connections["default"] = own
        try:
            yield own
        finally:
            own.close()
            connections["default"] = plain
            other.execute("DROP SCHEMA acme CASCADE")
