"""Add the rows that are requested."""

import json

from django.db import connection

from systemtasks.models import SystemTask, TaskRun

TASKS = """
INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp,
    finish_timestamp, duration, status, messages, expires, sort_timestamp)
SELECT gen_random_uuid(), 'app.tasks.sync', n::text, 'Fetch what has changed.',
    now() - n * '1 s'::interval, now(), 1.25, 'successful', %s, now() + '30 days'::interval,
    now() - n * '1 s'::interval
FROM generate_series(%s, %s) n
"""
RUNS = """
INSERT INTO systemtasks_taskrun (id, execution, system_task_id, celery_id, attempt, redelivered,
    state, status, queue, worker, sender, parent_id, root_id, context, start_timestamp,
    finish_timestamp, sort_timestamp, duration, args, kwargs, arguments_intact, exception, messages,
    expires)
SELECT overlay(gen_random_uuid()::text PLACING
        regexp_replace(lpad(to_hex((extract(epoch FROM started) * 1000)::bigint), 12, '0'),
            '(.{8})', '\\1-') || '-7' FROM 1 FOR 15)::uuid,
    gen_random_uuid(), %s, gen_random_uuid()::text, 1, false, 'success', 'successful', 'celery',
    'celery@worker', '', '', '', '{}', started, now(), started, 1.25, '[]', '{}', true, '', %s,
    now() + '30 days'::interval
FROM generate_series(1, %s) n, LATERAL (SELECT now() - n * '1 s'::interval AS started) AS run
"""
MESSAGES = [
    {
        "timestamp": "2024-06-01T12:00:00.500000Z",
        "log_level": "info",
        "logger": "app.tasks",
        "event": f"Fetched {number * 50} of 250 users",
        "attributes": {"page": number, "directory": "ldap-1"},
    }
    for number in range(1, 6)
]


def add_tasks(first: int, last: int) -> None:
    """Add the tasks with these numbers, each older than the one before.

    The tasks of the first call, which begins with number 1, have five messages. Others have one.
    """
    with connection.cursor() as cursor:
        cursor.execute(TASKS, [json.dumps(MESSAGES if first == 1 else MESSAGES[:1]), first, last])
    _settle(SystemTask._meta.db_table)


def add_runs(number: int) -> None:
    """Add this number of runs of the newest task."""
    task = SystemTask.objects.latest("start_timestamp")
    with connection.cursor() as cursor:
        cursor.execute(RUNS, [task.pk, json.dumps(MESSAGES[:1]), number])
    _settle(TaskRun._meta.db_table)


def _settle(table: str) -> None:
    """Vacuum and analyse the table, so that Postgres does not do so during the measurements."""
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {table}")
        cursor.execute("CHECKPOINT")
