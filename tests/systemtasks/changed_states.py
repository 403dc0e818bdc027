"""Change the table of outcomes, and print as JSON what is derived from it.

The arguments are pairs of texts. In the source of `systemtasks/states.py`, the second text of each
pair replaces the first.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import resources
from types import ModuleType
from typing import Any

import django


def change(texts: Sequence[str]) -> None:
    """Apply these changes to `systemtasks.states` when it is imported."""
    path = resources.files("systemtasks") / "states.py"
    source = path.read_text()
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        if old not in source:
            raise ValueError(f"{path} has no {old!r}")
        source = source.replace(old, new)
    module = ModuleType("systemtasks.states")
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), vars(module))


def places() -> dict[str, Any]:
    """Return the values that are derived from the table of outcomes, by the place of their use."""
    from django.apps import apps
    from django.contrib.admin import ModelAdmin, site
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.state import ProjectState
    from django.test import RequestFactory
    from rest_framework.serializers import ChoiceField

    from events.filters import TaskRunFilter
    from events.serializers import TaskRunSerializer
    from systemtasks.admin_parts.filters import ENDED, LATE, StateFilter
    from systemtasks.models import TaskRun
    from systemtasks.storage import sql

    admin = ModelAdmin(TaskRun, site)
    offered = StateFilter(RequestFactory().get("/"), {}, TaskRun, admin).offered
    lookups = [choice for choice in offered if choice[0] not in (ENDED, LATE)]

    column: Any = TaskRun._meta.get_field("state")
    serializer = TaskRunSerializer().fields["state"]
    assert isinstance(serializer, ChoiceField)
    constraints = {constraint.name: constraint for constraint in TaskRun._meta.constraints}
    loader = MigrationLoader(None)
    detector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps))
    migrations = detector.changes(loader.graph).get("systemtasks", [])
    return {
        "model": dict(column.flatchoices),
        "known": str(constraints["taskrun_state_known"]),
        "finished": str(constraints["taskrun_finished_has_finish"]),
        "migrations": [str(operation) for made in migrations for operation in made.operations],
        "filter": dict(TaskRunFilter.base_filters["state"].extra["choices"]),
        "serializer": dict(serializer.choices),
        "admin": dict(lookups),
        "sql": {
            name: value.text
            for name, value in vars(sql).items()
            if isinstance(value, sql.Statement)
        },
    }


if __name__ == "__main__":
    change(sys.argv[1:])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    print(json.dumps(places(), default=str))  # noqa: T201 - it is what this module is for
