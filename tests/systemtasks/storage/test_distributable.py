"""The table of runs can be distributed: whatever must be unique is so within a partition.

A table that Citus or TimescaleDB distributes has the same rules as a partitioned one of Postgres,
and more: no key spans its parts, and no other table refers to its rows.
"""

import re
from inspect import getmembers
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import UniqueConstraint

from systemtasks.models import TaskRun
from systemtasks.storage import sql
from systemtasks.storage.partitions import TABLE

KEY = "id"
"""The column of the partitions, in which are the time and random bits of each run."""

UNIQUE = """
    SELECT indexrelid::regclass::text, array_agg(attname::text) FROM pg_index
    JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey::int2[])
    WHERE indrelid = %s::regclass AND (indisunique OR indisexclusion) GROUP BY indexrelid
"""
REFERENCES = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND confrelid = %s::regclass"
TRANSITION_TABLES = """
    SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass
    AND (tgnewtable IS NOT NULL OR tgoldtable IS NOT NULL)
"""
STATEMENTS = {
    name: statement.text
    for name, statement in getmembers(sql)
    if isinstance(statement, sql.Statement)
}


def rows(query: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, [TABLE])
        return list(cursor.fetchall())


@pytest.mark.django_db
def test_every_unique_key_of_the_runs_has_the_column_of_the_partitions() -> None:
    keys = dict(rows(UNIQUE))
    assert keys
    assert [key for key, columns in keys.items() if KEY not in columns] == []


def test_every_unique_constraint_of_the_model_has_it_too() -> None:
    own = TaskRun._meta.constraints
    assert TaskRun._meta.pk.name == KEY
    assert [one.name for one in own if isinstance(one, UniqueConstraint)] == []
    unique = [field.name for field in TaskRun._meta.concrete_fields if field.unique]
    assert unique == [KEY]


@pytest.mark.django_db
def test_no_row_of_another_table_refers_to_a_run() -> None:
    assert rows(REFERENCES) == []
    fields = [field for model in apps.get_models() for field in model._meta.concrete_fields]
    assert [str(field) for field in fields if field.related_model is TaskRun] == []


@pytest.mark.django_db
def test_no_trigger_of_the_runs_needs_all_rows_of_a_statement() -> None:
    assert rows(TRANSITION_TABLES) == []


def conflicts(text: str) -> list[str]:
    """Return what each INSERT of runs in a statement does with a row that there is already."""
    inserts = re.findall(rf"INSERT INTO {TABLE}\b(.*?)(?=INSERT INTO|$)", text, re.DOTALL)
    found = [re.search(r"ON CONFLICT\s*(\([^)]*\))?", insert) for insert in inserts]
    return [one[1] or "any" if one else "none" for one in found]


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_that_inserts_runs_looks_for_that_key_alone(name: str) -> None:
    assert set(conflicts(STATEMENTS[name])) <= {f"({KEY})"}


def test_the_statements_that_insert_runs_are_found() -> None:
    inserting = {name for name, text in STATEMENTS.items() if conflicts(text)}
    assert {"UPSERT_RUNS", "UPSERT_FURTHER_RUNS", "INSERT_BEGINNINGS"} <= inserting
    assert conflicts(f"INSERT INTO {TABLE} AS old (id) SELECT 1 ON CONFLICT DO NOTHING") == ["any"]
    assert conflicts(f"INSERT INTO {TABLE} (id) SELECT 1") == ["none"]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_moves_a_run_to_another_partition(name: str) -> None:
    updates = re.findall(rf"(?:UPDATE {TABLE}\b[^;]*?\bSET|DO UPDATE SET)(.*?)(?=WHERE|FROM|$)",
        STATEMENTS[name], re.DOTALL)  # fmt: skip
    assert not any(re.search(rf"(?:^|,)\s*{KEY}\s*=", update) for update in updates)
