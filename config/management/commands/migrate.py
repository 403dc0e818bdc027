"""Migrate the two places that hold the tables; config/postgres/ describes them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import migrate
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from config.postgres import SERVICE, SHARED
from config.postgres.base import DatabaseWrapper

PAUSE = 0.2  # seconds between two attempts to be the one that migrates

NO_SCHEMA = (
    "The database's role {role} may not make the schema {schema}. Let the database's owner do it: "
    "CREATE SCHEMA {schema} AUTHORIZATION {role}"
)


class Command(migrate.Command):
    """Django's `migrate`, run once for each of the two places that hold the tables."""

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Django's own signature
        """Migrate both places, or only the database that the options name.

        The record of migrations in the service's schema includes those of `systemtasks`, although
        they create nothing there: Django's other commands read that record only.
        """
        if options["database"] != DEFAULT_DB_ALIAS:
            super().handle(*args, **options)
            return
        dry_run = options["plan"] or options["check_unapplied"]
        try:
            with _alias(SHARED), _alias(SERVICE):
                if not dry_run:
                    _wait_for_others()
                    _make_schema()
                if options["app_label"] in (None, "systemtasks"):
                    shared = {"app_label": "systemtasks", "run_syncdb": False}
                    super().handle(*args, **{**options, **shared, "database": SHARED})
                super().handle(*args, **{**options, "database": SERVICE})
        except ProgrammingError as error:
            if isinstance(error.__cause__, InsufficientPrivilege):
                reason, *_ = str(error).splitlines()
                raise CommandError(f"The database's role may not migrate: {reason}") from error
            raise


@contextmanager
def _alias(name: str) -> Iterator[None]:
    """Add an alias of the default database, which may be a test's, for the length of the block."""
    default = connections[DEFAULT_DB_ALIAS].settings_dict
    connections[name] = DatabaseWrapper(deepcopy(default), name)
    try:
        yield
    finally:
        connections[name].close()
        del connections[name]


def _wait_for_others() -> None:
    """Wait until no other process migrates this database. This one does until its alias is closed.

    Each host of a deployment may run the command. Django reads once what is applied, so that two of
    them would make the same tables, and one would fail.
    """
    with connections[SHARED].cursor() as cursor:
        # A statement that waits for the lock would hold up an index that is made CONCURRENTLY.
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(hashtext('systemtasks.migrate'))")
            if cursor.fetchone()[0]:
                return
            time.sleep(PAUSE)


def _make_schema() -> None:
    """Create the service's schema if it is missing. Raise CommandError if the role may not."""
    with connections[SHARED].cursor() as cursor:
        # CREATE … IF NOT EXISTS needs the right to create schemas even if the schema exists.
        cursor.execute("SELECT to_regnamespace(%s) IS NULL, current_user", [_name()])
        missing, role = cursor.fetchone()
        if not missing:
            return
        try:
            cursor.execute(
                sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(settings.SERVICE_SCHEMA))
            )
        except ProgrammingError as error:
            raise CommandError(NO_SCHEMA.format(role=role, schema=_name())) from error


def _name() -> str:
    return sql.Identifier(settings.SERVICE_SCHEMA).as_string()
