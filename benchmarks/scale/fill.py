"""Fill the tables by SQL, with runs of DAYS days as many workers have them.

300 tasks, of which the most frequent one has an eighth of all runs. Of 100 runs, 3 fail, 1 ends
with a warning and 1 is retried; 30 were sent by another run. A few are queued or running.

Each day is filled before it becomes a partition: so its indexes are built at once. Two days are
filled at a time. The statistics and the texts of the search are written as the housekeeping does.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid5

from django.apps import apps
from django.db import connection

from benchmarks.scale import DAYS
from benchmarks.scale.databases import Database, close, use
from systemtasks.ids import system_task_uuid
from systemtasks.models import TaskRun
from systemtasks.storage import folding, partitions, rows

TASKS = 300
CHUNK = 50_000
AT_ONCE = 2
"""The days that are filled at the same time."""
EXPIRED_DAYS = 1
"""The days, from the first one, whose runs have expired."""
WITH_UID = 10
"""Each task with a number that this divides has a uid."""

INSERT_TASKS = """
INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp,
    finish_timestamp, duration, status, messages, expires, execution, sort_timestamp)
SELECT uuid, name, uid, 'Fetches what has changed since the last run.', now(), now(), 0, 'unknown',
    '[]', now() + interval '90 days', NULL, NULL
FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS given (uuid, name, uid)
"""

MORE_TASKS_NAME = "directory.tasks.sync_user"
MORE_TASKS = """
INSERT INTO systemtasks_systemtask (uuid, name, uid, description, start_timestamp,
    finish_timestamp, duration, status, messages, expires, execution, sort_timestamp)
SELECT uuid, %s, uid, 'Fetches what has changed since the last run.', began,
    began + interval '1.25 s', 1.25, CASE WHEN n %% 33 = 0 THEN 'error' ELSE 'successful' END,
    jsonb_build_array(jsonb_build_object('timestamp', began, 'log_level', 'info', 'logger',
        'directory.tasks', 'event', 'Fetched user ' || md5(uid) || ' of 250',
        'attributes', jsonb_build_object('page', n))),
    began + interval '90 days', gen_random_uuid(), began
FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS given (uuid, uid, n),
LATERAL (SELECT now() - n * interval '1 s' AS began) AS run
"""

DAY = """
INSERT INTO {partition} (id, execution, system_task_id, celery_id, attempt, message, number,
    executions, redelivered, parent_run, state, status, queue, worker, sent_timestamp,
    eta_timestamp, start_timestamp, finish_timestamp, sort_timestamp, wait, duration, args, kwargs,
    arguments_intact, exception, messages, expires, sender, parent_id, root_id, context, lease,
    seen_timestamp)
SELECT run.id, CASE WHEN began THEN run.id END, (%(tasks)s::uuid[])[task], run.celery_id,
    1 + (n %% 100 = 1)::int, CASE WHEN again THEN first.id END, 1 + again::int, 1, again,
    CASE WHEN n <> root_n THEN root.id END,
    state,
    CASE state WHEN 'failure' THEN 'error' WHEN 'retry' THEN 'warning' WHEN 'revoked' THEN 'warning'
        WHEN 'success' THEN CASE WHEN chance < 0.04 THEN 'warning' ELSE 'successful' END
        ELSE 'unknown' END,
    (ARRAY['default', 'default', 'default', 'mail', 'default', 'reports', 'urgent'])[1 + task %% 7],
    CASE WHEN began THEN 'celery@worker-' || task %% 4 || '-' || abs(hashint4(n)) %% 6 ELSE '' END,
    sent, CASE WHEN n %% 50 = 7 THEN sent END,
    CASE WHEN began THEN sent + wait * interval '1 s' END,
    CASE WHEN ended THEN sent + (wait + duration) * interval '1 s' END,
    CASE WHEN began THEN sent + wait * interval '1 s' END,
    CASE WHEN began THEN wait END, CASE WHEN ended THEN duration END,
    ('[' || n || ', "order-' || n || '"]')::jsonb,
    '{{"dry_run": false, "region": "eu-central"}}'::jsonb, true,
    CASE state WHEN 'failure' THEN 'shop.errors.OrderError: order ' || n || ' has no address'
        WHEN 'retry' THEN 'Retry in 30s: TimeoutError()' ELSE '' END,
    CASE WHEN NOT ended THEN '[]' WHEN state = 'failure' THEN
        jsonb_build_array(jsonb_build_object('timestamp', sent, 'log_level', 'error',
            'logger', 'celery.app.trace', 'event', 'order ' || n || ' has no address',
            'attributes', jsonb_build_object('exception', jsonb_build_object('traceback', (
                SELECT string_agg('  File "/app/shop/' || md5((n * line)::text) || '.py", line '
                    || line || E', in charge\n    return self.charge(order)', E'\n')
                FROM generate_series(1, 12) AS line)))))
    ELSE jsonb_build_array(jsonb_build_object('timestamp', sent, 'log_level', 'info',
        'logger', 'shop.tasks', 'event', 'Charged order ' || n || ' of customer ' || n %% 5000,
        'attributes', jsonb_build_object('attempts', n %% 3, 'amount', round(chance::numeric, 4))))
    END,
    CASE WHEN n %% 5000 > 0 THEN sent + %(expiry)s * interval '1 day' END,
    'gen' || n %% 8 || '@web-' || n %% 3,
    CASE WHEN n <> root_n THEN root.celery_id ELSE '' END,
    CASE WHEN n <> root_n THEN root.celery_id ELSE '' END,
    CASE WHEN n %% 5 = 0 THEN jsonb_build_object('user', n %% 900, 'request', md5(n::text))
        ELSE '{{}}' END,
    CASE WHEN began AND NOT ended THEN '00000000-0000-4000-8000-000000000001'::uuid END,
    CASE WHEN began AND NOT ended THEN now() END
FROM (
    SELECT n, n - CASE WHEN n %% 10 IN (3, 4, 5) THEN n %% 10 ELSE 0 END AS root_n,
        n %% 1000 = 9 AS again,
        n <= %(last)s - %(queued)s AS began, n <= %(last)s - %(queued)s - %(running)s AS ended,
        floor(exp(ln(%(number)s + 1) * random()))::int AS task, random() AS chance,
        -0.4 * ln(1 - random()) AS wait, random() AS spread
    FROM generate_series(1, %(last)s) AS n
) AS made,
LATERAL {run_of_n} AS run (id, celery_id, sent),
LATERAL {run_of_root} AS root (id, celery_id, sent_of_root),
LATERAL {run_before} AS first (id, celery_id, sent_before),
LATERAL (SELECT
    0.02 * (1 + task %% 13) ^ 2 * -ln(1 - spread) * CASE WHEN n %% 1000 = 500 THEN 60 ELSE 1 END
        AS duration,
    CASE WHEN NOT began THEN 'queued' WHEN NOT ended THEN 'running' WHEN n %% 100 = 0 THEN 'retry'
        WHEN chance < 0.03 THEN 'failure' WHEN chance > 0.998 THEN 'revoked'
        WHEN chance > 0.997 THEN 'ignored' ELSE 'success' END AS state) AS result
"""

RUN = """(SELECT
    (lpad(to_hex((epoch * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
        || substr(hash, 4, 15))::uuid,
    md5('celery' || %(day)s || {celery_n})::uuid::text, to_timestamp(epoch)
    FROM (SELECT %(begin)s + %(seconds)s::float8 * {n} / %(last)s AS epoch,
        md5('run' || %(day)s || {n}) AS hash) AS at)"""
"""The id, the Celery id and the time of a run, by its number in its day.

A run after one that was retried has its Celery id: it is the next attempt.
"""

LAST_RUNS = """
UPDATE systemtasks_systemtask AS task
SET start_timestamp = run.start_timestamp, finish_timestamp = run.finish_timestamp,
    duration = run.duration, status = run.status, messages = run.messages,
    expires = run.expires, execution = run.execution, sort_timestamp = run.sort_timestamp
FROM (SELECT uuid FROM systemtasks_systemtask WHERE uuid = ANY(%s)) AS known,
LATERAL (SELECT * FROM systemtasks_taskrun WHERE system_task_id = known.uuid
    AND finish_timestamp IS NOT NULL ORDER BY sort_timestamp DESC, id DESC LIMIT 1) AS run
WHERE task.uuid = known.uuid
"""


def task_names() -> list[tuple[str, str]]:
    """Return the names and uids of the tasks, the most frequent one first."""
    return [
        (
            f"shop.{('orders', 'mail', 'stock')[number % 3]}.tasks.task_{number:03}",
            f"source-{number}" if number % WITH_UID == 0 else "",
        )
        for number in range(1, TASKS + 1)
    ]


def fill(database: Database, *, with_statistics: bool = True) -> float:
    """Write the database's runs and tasks. Return the seconds it took.

    `databases.use` has been called with it. To fold the statistics takes minutes, however few the
    runs are, since there are so many hours.
    """
    began = time.monotonic()
    names = task_names()
    uuids = [system_task_uuid(*name) for name in names]
    with connection.cursor() as cursor:
        _prepare(cursor)
        cursor.execute(INSERT_TASKS, [uuids, *map(list, zip(*names, strict=True))])
        _fill_days(cursor, database, uuids)
        partitions.make_ahead()
        cursor.execute(LAST_RUNS, [uuids])
        with _without_index(cursor, "searchtext_document"):
            _fill_tasks(cursor, database.more_tasks)
            while rows.write_search_texts(CHUNK):  # as the writer's housekeeping does
                pass
        # Each partition, and the whole. Not while others are filled, whose transactions are open:
        # a row is only visible to all if it is older than these.
        cursor.execute("VACUUM ANALYZE systemtasks_taskrun")
        if with_statistics:
            folding.fold_all()
        for model in apps.get_app_config("systemtasks").get_models():
            if model is not TaskRun:
                cursor.execute(f"VACUUM ANALYZE {model._meta.db_table}")
        cursor.execute("CHECKPOINT")
    connection.close()  # with its settings
    return time.monotonic() - began


def _prepare(cursor: Any) -> None:  # noqa: ANN401
    cursor.execute("SET synchronous_commit = off")
    cursor.execute("SET maintenance_work_mem = '256MB'")


@contextmanager
def _without_index(cursor: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """Drop an index for the length of the block, since to build it at once takes less time."""
    cursor.execute("SELECT pg_get_indexdef(%s::regclass)", [name])
    [(definition,)] = cursor.fetchall()
    cursor.execute(f"DROP INDEX {name}")
    yield
    cursor.execute(definition)


def _fill_tasks(cursor: Any, number: int) -> None:  # noqa: ANN401
    for first in range(0, number, CHUNK):
        uids = [more_task_uid(each) for each in range(first, min(first + CHUNK, number))]
        uuids = [uuid5(system_task_uuid(MORE_TASKS_NAME), uid) for uid in uids]
        cursor.execute(MORE_TASKS, [MORE_TASKS_NAME, uuids, uids])


def more_task_uid(number: int) -> str:
    """Return the uid of one of the tasks without runs, from 0."""
    return f"user-{number}"


def _fill_days(cursor: Any, database: Database, tasks: list[Any]) -> None:  # noqa: ANN401
    # Not the first schema that the connection searches: that is the service's own.
    cursor.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class "
        "WHERE oid = 'systemtasks_taskrun'::regclass"
    )
    [(schema,)] = cursor.fetchall()
    cursor.execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = 'systemtasks_taskrun'::regclass AND NOT indisprimary"
    )
    indexes = [definition for (definition,) in cursor.fetchall()]
    today = datetime.now(UTC).date()
    same = replace(database, name=str(connection.settings_dict["NAME"]))  # a test's has another

    def fill_day(number: int) -> None:
        use(same)
        with connection.cursor() as own:
            _prepare(own)
            _fill_partition(own, schema, indexes, database.runs, number, today, tasks)
        close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fill_day, range(DAYS)))


def _fill_partition(
    cursor: Any,  # noqa: ANN401
    schema: str,
    indexes: list[str],
    runs: int,
    number: int,
    today: date,
    tasks: list[Any],
) -> None:
    """Make the partition of a day, given its number from 0, with its share of the runs."""
    day = today - timedelta(days=DAYS - 1 - number)
    name = f"{schema}.systemtasks_taskrun_{day:%Y%m%d}"
    first, end = partitions.bounds(day)
    cursor.execute(f"DROP TABLE IF EXISTS {name}")  # an empty partition made ahead
    cursor.execute(
        f"CREATE TABLE {name} (LIKE systemtasks_taskrun INCLUDING ALL EXCLUDING INDEXES)"
    )
    last = _runs_of_day(runs, number)
    _fill_day(cursor, name, day, last, runs, tasks, DAYS + 1 if number >= EXPIRED_DAYS else 1)
    # The indexes of the whole table: it takes them over when the partition is attached.
    cursor.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
    for definition in indexes:
        cursor.execute(re.sub(r"INDEX \S+ ON ONLY \S+", f"INDEX ON {name}", definition, count=1))
    cursor.execute(
        f"ALTER TABLE systemtasks_taskrun ATTACH PARTITION {name} "
        f"FOR VALUES FROM ('{first}') TO ('{end}')"
    )


def _runs_of_day(runs: int, number: int) -> int:
    """Return the share of a day, given its number from 0: today has less, as it is not over."""
    now = datetime.now(UTC)
    passed = (now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1)
    days = DAYS - 1 + max(passed, 0.1)  # so that some runs are queued and running
    if number == DAYS - 1:
        return runs - sum(_runs_of_day(runs, other) for other in range(DAYS - 1))
    return round(runs / days)


def _fill_day(
    cursor: Any,  # noqa: ANN401
    name: str,
    day: date,
    last: int,
    runs: int,
    tasks: list[Any],
    expiry: int,
) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = min(begin + timedelta(days=1), datetime.now(UTC))
    is_today = end - begin < timedelta(days=1)
    statement = DAY.format(
        partition=name,
        run_of_n=RUN.format(n="n", celery_n="(n - (n %% 100 = 1)::int)"),
        run_of_root=RUN.format(n="root_n", celery_n="(root_n - (root_n %% 100 = 1)::int)"),
        run_before=RUN.format(n="(n - 1)", celery_n="(n - 1)"),
    )
    values = {
        "begin": begin.timestamp(),
        "seconds": (end - begin).total_seconds() * 0.999,
        "day": f"{day}",
        "last": last,
        "queued": min(300, runs // 200, last // 4) if is_today else 0,
        "running": min(50, runs // 1000, last // 4) if is_today else 0,
        "tasks": tasks,
        "number": len(tasks),
        "expiry": expiry,
    }
    cursor.execute(statement, values)
