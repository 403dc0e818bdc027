"""Connect to Postgres for statements that go around Django's own cursors."""

from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper


def connect(connection: Any) -> None:  # noqa: ANN401 - Django's, of any database
    """Open the connection if it is closed, and let a project's own backend prepare it.

    A backend may run a statement of its own whenever it makes a cursor: that of django-tenants sets
    the search_path there. Without it, a statement would run in the schema of an earlier request.
    """
    if type(connection) is DatabaseWrapper:
        connection.ensure_connection()
    else:
        connection.cursor().close()
