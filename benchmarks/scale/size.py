"""The bytes of a run: its row, its long values, and each index."""

from django.db import connection

SIZES = """
SELECT what, sum(bytes)::bigint FROM (
    SELECT unnest(ARRAY['rows', 'long values, apart']) AS what,
        unnest(ARRAY[pg_relation_size(part), coalesce(pg_total_relation_size(
            nullif((SELECT reltoastrelid FROM pg_class WHERE oid = part), 0)), 0)]) AS bytes
    FROM (SELECT inhrelid::regclass AS part FROM pg_inherits
        WHERE inhparent = 'systemtasks_taskrun'::regclass) AS parts
    UNION ALL
    SELECT 'index ' || whole.relname, pg_relation_size(inhrelid)
    FROM pg_inherits JOIN pg_class AS whole ON whole.oid = inhparent AND whole.relkind = 'I'
    JOIN pg_index ON indexrelid = whole.oid AND indrelid = 'systemtasks_taskrun'::regclass
) AS sizes GROUP BY what ORDER BY what LIKE 'index%', sum(bytes) DESC
"""


def bytes_a_run() -> dict[str, float]:
    """Return the bytes a run of each part, in the database that is in use."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM systemtasks_taskrun")
        [(runs,)] = cursor.fetchall()
        cursor.execute(SIZES)
        sizes = {what: int(size) / runs for what, size in cursor.fetchall()}
    return {**sizes, "all": sum(sizes.values())}
