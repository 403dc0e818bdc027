"""Check this app's settings for `manage.py check`."""

import os
import stat
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from django.core.checks import (
    CheckMessage,
    Error,
    Info,
    Tags,
    Warning,  # noqa: A004 - Django's name
    register,
)
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router

from systemtasks.conf import Conf, conf
from systemtasks.models import SystemTask
from systemtasks.storage.folder import OTHERS_WRITE, fault_of, folders
from systemtasks.under_test import is_under_test

TRIGRAMS = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm'),
    (SELECT bool_or(rolsuper OR trusted AND has_database_privilege(current_database(), 'CREATE'))
     FROM pg_available_extension_versions, pg_roles
     WHERE name = 'pg_trgm' AND rolname = current_user),
    to_regclass(%s) IS NOT NULL,
    current_user
"""


@register()
def check_settings(**_: Any) -> Sequence[CheckMessage]:  # noqa: ANN401 - Django's own signature
    """Return the errors and warnings about the settings in SYSTEMTASKS."""
    try:
        rules = conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="systemtasks.E001")]
    if not rules.ENABLED:
        return []
    return [*_of_engine(rules), *_of_routing(rules), *_of_journal(rules), *_of_driver()]


@register(Tags.database)
def check_database(databases: Sequence[str] | None = None, **_: Any) -> Sequence[CheckMessage]:  # noqa: ANN401 - Django's own signature
    """Return warnings about what the search needs in the database, if this database is checked."""
    try:
        rules = conf()
    except ImproperlyConfigured:
        return []  # the other check reports it
    connection = connections[rules.DATABASE]
    if rules.DATABASE not in (databases or ()) or connection.vendor != "postgresql":
        return []
    if not rules.ENABLED:
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(TRIGRAMS, [SystemTask._meta.db_table])
            is_installed, may_install, is_migrated, user = cursor.fetchone()
    except DatabaseError:
        return []  # whoever uses the database says why it cannot be reached
    if is_installed or (may_install and not is_migrated):
        return []
    named = f"The extension pg_trgm is missing in the database {rules.DATABASE!r}"
    if may_install is None:
        sentence = f"{named}, and its server does not have it."
        hint = "Install what your system calls Postgres's contrib modules. The search needs it."
    elif is_migrated:
        sentence = f"{named}, so that each search reads a whole table."
        hint = (
            "CREATE EXTENSION pg_trgm, and then the indexes searchtext_document and "
            "taskrun_exception, which were dropped with it: manage.py sqlmigrate shows how the "
            "migrations create them."
        )
    else:
        sentence = f"{named}, and its user {user} may not create it."
        hint = "Let the database's owner do it before you migrate: CREATE EXTENSION pg_trgm"
    return [(Warning if is_migrated else Error)(sentence, hint=hint, id="systemtasks.E005")]


def _of_engine(rules: Conf) -> Iterator[CheckMessage]:
    vendor = connections[rules.DATABASE].vendor
    if vendor != "postgresql" and not is_under_test():
        yield Error(
            f"SYSTEMTASKS['DATABASE'] is {rules.DATABASE!r}, which is {vendor} and not PostgreSQL.",
            hint="Name an alias of a PostgreSQL database, or set ENABLED to False.",
            id="systemtasks.E003",
        )


def _of_routing(rules: Conf) -> Iterator[CheckMessage]:
    # Reads may use a replica of it.
    if (alias := router.db_for_write(SystemTask)) != rules.DATABASE:
        yield Error(
            f"Runs are written to SYSTEMTASKS['DATABASE'], {rules.DATABASE!r}, but the admin and "
            f"the API look for them in {alias!r}.",
            hint="Add 'systemtasks.routing.Router' to DATABASE_ROUTERS, before any router that "
            f"says otherwise, and run manage.py migrate --database {rules.DATABASE}.",
            id="systemtasks.E004",
        )
    elif not router.allow_migrate_model(rules.DATABASE, SystemTask):
        yield Warning(
            f"A router in DATABASE_ROUTERS lets migrate make no tables of systemtasks in "
            f"{rules.DATABASE!r}. It then notes the migrations as applied all the same.",
            hint="With django-tenants, 'systemtasks' must be in SHARED_APPS, and not only in "
            "INSTALLED_APPS or TENANT_APPS. Otherwise, correct allow_migrate in the router. If "
            "the migrations are noted already, run 'migrate --fake systemtasks zero' first.",
            id="systemtasks.W003",
        )


def _of_driver() -> Iterator[CheckMessage]:
    if find_spec("psycopg2") is not None:
        yield Info(
            f"Django uses psycopg {psycopg.__version__} for PostgreSQL here, and not psycopg2, "
            "although that is installed too.",
            hint="Django prefers psycopg 3 wherever it is installed, and systemtasks needs it.",
            id="systemtasks.I001",
        )


def _of_journal(rules: Conf) -> Iterator[CheckMessage]:
    if rules.JOURNAL_DIR:
        yield from _of_folder(Path(rules.JOURNAL_DIR))
        return
    # Where no other account can write, of the first one that can be used.
    faults = [(folder, _why_unusable(folder)) for folder in folders()]
    if all(fault for _, fault in faults):
        listed = "; ".join(f"{folder}: {fault}" for folder, fault in faults)
        yield _unusable("The journal's default folder", listed)


def _of_folder(folder: Path) -> Iterator[CheckMessage]:
    named = f"SYSTEMTASKS['JOURNAL_DIR'], {folder},"
    try:
        if os.path.lexists(folder) and (fault := fault_of(folder)) is not None:
            yield Error(
                f"{named} {fault}.",
                hint="What is in it becomes rows, and is sent again by 'run again'. Name a folder "
                "that belongs to the workers' account and that only this may write to "
                "(chown, chmod go-w).",
                id="systemtasks.E002",
            )
            return
        for path in folder.absolute().parents:
            if path.exists() and _may_be_replaced(path):
                yield Warning(
                    f"{named} may be put out of use by other accounts, which may write to {path}.",
                    hint="Take that from them (chmod go-w), or set its sticky bit (chmod +t).",
                    id="systemtasks.W001",
                )
                break
    except OSError as error:
        yield _unusable(named, str(error))
        return
    if (fault := _why_unusable(folder)) is not None:
        yield _unusable(named, fault)


def _why_unusable(folder: Path) -> str | None:
    """Return why the journal cannot be in this folder, or None. The folder may not exist yet."""
    try:
        if os.path.lexists(folder) and (fault := fault_of(folder)) is not None:
            return f"it {fault}"
    except OSError as error:
        return str(error)
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written to"
    return None


def _unusable(named: str, why: str) -> CheckMessage:
    return Warning(
        f"{named} is not used by this account: {why}.",
        hint="A process that is killed takes with it what it has not written to the database yet.",
        id="systemtasks.W002",
    )


def _may_be_replaced(folder: Path) -> bool:
    """Return True if others may rename or delete the files in this folder."""
    mode = folder.stat().st_mode
    return bool(mode & OTHERS_WRITE) and not mode & stat.S_ISVTX
