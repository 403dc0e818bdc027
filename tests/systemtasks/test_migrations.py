"""A migration is made for a table of ten million rows, which others read and write meanwhile."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.models import Index

from systemtasks.models import TaskRun
from systemtasks.postgres import AddIndexToPartitions
from systemtasks.storage.partitions import TABLE, existing, make_ahead
from tests import factories

FIRST = {"0001_initial", "0002_statistics"}
"""The migrations that make all tables, which are empty then."""

SLOW = {
    r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)(?!.* ON ONLY )": "create it CONCURRENTLY",
    r"DROP INDEX (?!CONCURRENTLY)": "drop it CONCURRENTLY",
    r"ADD CONSTRAINT (?!.* NOT VALID)": "add it NOT VALID, then VALIDATE CONSTRAINT",
    r"ALTER COLUMN \S+ (SET DATA )?TYPE ": "a new type may write each row: add a column",
    r"ALTER COLUMN \S+ SET NOT NULL": "it reads each row: VALIDATE a CHECK first",
    r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL": "a column must be NULL, or have a DEFAULT",
    r"ADD COLUMN .*\bDEFAULT \(?(?!now\(|statement_timestamp\()\w+\(": "a default that is computed "
    "for each row writes each: add the column, then its default",
    r"ADD COLUMN .*\bGENERATED ALWAYS AS \(.* STORED": "it writes each row: compute it when read",
    r"^(UPDATE|DELETE FROM) ": "it writes many rows in one transaction: let the housekeeping do it",
    r"^(CLUSTER|VACUUM FULL|REINDEX (?!.*CONCURRENTLY))": "it locks the whole table",
}
"""Patterns of statements that hold up others, and what to do instead."""


def faults(statements: list[str]) -> list[str]:
    """Return what must be done instead of the statements of a migration that hold up others."""
    created = set(re.findall(r'CREATE TABLE "?(\w+)', "\n".join(statements)))
    found = []
    for statement in statements:
        table = re.search(r'(?:\bON|^ALTER TABLE) (?:ONLY )?"?(\w+)', statement)
        if table and table[1] in created:
            continue  # nobody uses it yet
        found += [text for slow, text in SLOW.items() if re.search(slow, statement, re.IGNORECASE)]
    locks = any(re.match(r"ALTER TABLE|CREATE TRIGGER|DROP ", one) for one in statements)
    if locks and not any("lock_timeout" in statement for statement in statements):
        found.append("set a lock_timeout, since whoever reads or writes waits behind the migration")
    return found


def statements_of(migration: Migration) -> list[str]:
    executor = MigrationExecutor(connection)
    state = executor.loader.project_state([("systemtasks", sorted(FIRST)[-1])])
    with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        migration.apply(state, editor, collect_sql=True)
    return [one.rstrip(";") for one in editor.collected_sql if not one.startswith("--")]


def migration_of(operation: Operation) -> Migration:
    values = {"operations": [operation], "atomic": False}
    made: Migration = type("Migration", (Migration,), values)("0099_test", "systemtasks")
    return made


@pytest.mark.django_db
def test_no_migration_holds_up_who_reads_and_writes() -> None:
    loader = MigrationExecutor(connection).loader
    own = {name for app, name in loader.disk_migrations if app == "systemtasks"}
    assert own >= FIRST
    for name in sorted(own - FIRST):
        assert faults(statements_of(loader.disk_migrations["systemtasks", name])) == [], name


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE INDEX "x" ON "systemtasks_taskrun" ("worker")',
        'CREATE UNIQUE INDEX "x" ON "systemtasks_taskrun" ("worker")',
        'DROP INDEX IF EXISTS "x"',
        'ALTER TABLE "systemtasks_taskrun" ADD CONSTRAINT "x" CHECK ("attempt" > 0)',
        'ALTER TABLE "systemtasks_taskrun" ALTER COLUMN "worker" TYPE text',
        'ALTER TABLE "systemtasks_taskrun" ALTER COLUMN "worker" SET NOT NULL',
        'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" integer NOT NULL',
        'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" uuid DEFAULT gen_random_uuid() NOT NULL',
        'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" float DEFAULT (RANDOM()) NOT NULL',
        'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" integer '
        'GENERATED ALWAYS AS ("attempt" + 1) STORED',
        'create index "x" on "systemtasks_taskrun" ("worker")',
        'UPDATE "systemtasks_taskrun" SET "worker" = \'\'',
        'DELETE FROM "systemtasks_taskrun"',
        'REINDEX TABLE "systemtasks_taskrun"',
    ],
)
def test_statement_that_holds_up_others_is_refused(statement: str) -> None:
    assert len(faults(["SET lock_timeout = '1s'", statement])) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ['CREATE INDEX CONCURRENTLY "x" ON "systemtasks_systemtask" ("uid")'],
        [
            'CREATE TABLE "systemtasks_new" (id integer)',
            'CREATE INDEX "x" ON "systemtasks_new" ("id")',
        ],
        [
            "SET LOCAL lock_timeout = '1s'",
            'ALTER TABLE "systemtasks_taskrun" ADD CONSTRAINT "x" CHECK ("attempt" > 0) NOT VALID',
        ],
        [
            "SET lock_timeout = '1s'",
            'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" integer NULL',
        ],
        [
            "SET lock_timeout = '1s'",
            'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" integer DEFAULT 1 NOT NULL',
        ],
        [
            "SET lock_timeout = '1s'",
            'ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" timestamptz '
            "DEFAULT (STATEMENT_TIMESTAMP()) NOT NULL",
        ],
        ['ALTER TABLE "x" VALIDATE CONSTRAINT "y"', "SET lock_timeout = '1s'"],
    ],
)
def test_statements_that_hold_up_nobody_are_accepted(statements: list[str]) -> None:
    assert faults(statements) == []


def test_migration_that_locks_a_table_without_a_time_out_is_refused() -> None:
    [fault] = faults(['ALTER TABLE "systemtasks_taskrun" ADD COLUMN "x" integer NULL'])
    assert fault.startswith("set a lock_timeout")


@pytest.fixture
def operation(transactional_db: None) -> Iterator[AddIndexToPartitions]:
    yield AddIndexToPartitions("taskrun", Index(fields=["sender", "-id"], name="taskrun_sender"))
    execute("DROP INDEX IF EXISTS taskrun_sender")
    for day in existing():
        execute(f"DROP TABLE {TABLE}_{day:%Y%m%d}")


def apply(operation: Operation, *, atomic: bool = False) -> None:
    executor = MigrationExecutor(connection)
    before = executor.loader.project_state()
    after = before.clone()
    operation.state_forwards("systemtasks", after)
    with connection.schema_editor(atomic=atomic) as editor:
        operation.database_forwards("systemtasks", editor, before, after)


def execute(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [*cursor.fetchall()] if cursor.description else []


def valid() -> list[tuple[str, bool]]:
    """Return the names of the index and its partitions, each with True if it is valid."""
    return execute(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE relname ~ 'taskrun_sender$' ORDER BY 1"
    )


def test_index_of_all_partitions_is_made_without_holding_up_anybody(
    operation: AddIndexToPartitions,
) -> None:
    factories.task_run(factories.system_task())
    make_ahead()
    assert faults(statements_of(migration_of(operation))) == []
    apply(operation)

    assert len(valid()) == len(existing()) + 2  # of the default partition, and of the whole table
    assert all(is_valid for _, is_valid in valid())
    assert execute("SHOW lock_timeout") == [("0",)]
    assert TaskRun.objects.count() == 1


def test_index_whose_making_was_interrupted_is_made_whole(operation: AddIndexToPartitions) -> None:
    make_ahead()
    broken = f"{TABLE}_default_taskrun_sender"
    execute(f"CREATE INDEX {broken} ON {TABLE}_default (worker)")  # as if it were another one
    execute("CREATE INDEX taskrun_sender ON ONLY systemtasks_taskrun (sender, id DESC)")
    first = f"{TABLE}_{existing()[0]:%Y%m%d}"
    execute(f"CREATE INDEX {first}_x ON {first} (sender, id DESC)")
    execute(f"ALTER INDEX taskrun_sender ATTACH PARTITION {first}_x")
    apply(operation)

    assert dict(valid())["taskrun_sender"]


def test_index_of_all_partitions_is_not_made_in_a_transaction(
    operation: AddIndexToPartitions,
) -> None:
    with pytest.raises(Exception, match="cannot be executed inside a transaction"):
        apply(operation, atomic=True)


ALIGNMENTS = """
    SELECT attname, typalign FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


@pytest.mark.django_db
def test_no_byte_is_lost_between_the_columns_of_a_run_that_have_a_fixed_length() -> None:
    with connection.cursor() as cursor:
        cursor.execute(ALIGNMENTS, [TABLE])
        aligned = cursor.fetchall()
    fixed = [align for name, align in aligned[: [name for name, _ in aligned].index("state")]]
    assert "".join(fixed) == "".join(sorted(fixed, key="dic".index))
    # Those of any length come last: short ones need no alignment, and messages are the longest.
    assert aligned[-1][0] == "messages"
