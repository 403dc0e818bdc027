"""Check this app's settings for `manage.py check`."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from systemtasks.conf import Conf, conf
from systemtasks.storage.folder import OTHERS_WRITE, fault_of
from systemtasks.under_test import is_under_test


@register()
def check_settings(**_: Any) -> Sequence[CheckMessage]:  # noqa: ANN401 - Django's own signature
    """Return what is wrong with the settings in SYSTEMTASKS."""
    try:
        rules = conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="systemtasks.E001")]
    return [*_of_database(rules), *_of_journal(rules)] if rules.ENABLED else []


def _of_database(rules: Conf) -> Iterator[CheckMessage]:
    vendor = connections[rules.DATABASE].vendor
    if vendor != "postgresql" and not is_under_test():
        yield Error(
            f"SYSTEMTASKS['DATABASE'] is {rules.DATABASE!r}, which is {vendor} and not PostgreSQL.",
            hint="Name an alias of a PostgreSQL database, or set ENABLED to False.",
            id="systemtasks.E003",
        )


def _of_journal(rules: Conf) -> Iterator[CheckMessage]:
    if not rules.JOURNAL_DIR:
        return  # the default is looked for where no other account can write
    folder, named = Path(rules.JOURNAL_DIR), f"SYSTEMTASKS['JOURNAL_DIR'], {rules.JOURNAL_DIR},"
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        if existing is folder and (fault := fault_of(folder)) is not None:
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
    if not os.access(existing, os.W_OK | os.X_OK):
        yield _unusable(named, f"{existing} cannot be written to")


def _unusable(named: str, why: str) -> CheckMessage:
    return Warning(
        f"{named} is not used by this account: {why}.",
        hint="A process that is killed takes with it what it has not written to the database yet.",
        id="systemtasks.W002",
    )


def _may_be_replaced(folder: Path) -> bool:
    """Return True if others may rename or delete what this folder holds."""
    mode = folder.stat().st_mode
    return bool(mode & OTHERS_WRITE) and not mode & stat.S_ISVTX
