"""Respond with the result of one prepared statement, from a WSGI callable.

It has no framework, and checks neither a token nor a permission. No stack can be faster.
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

COLUMNS = (
    "uuid, name, name || CASE uid WHEN '' THEN '' ELSE ':' || uid END AS full_name, uid, "
    "description, start_timestamp, finish_timestamp, duration, status, messages, expires, "
    "expires IS NOT NULL AS expiring"
)
TABLE = f"SELECT {COLUMNS} FROM systemtasks_systemtask "  # noqa: S608 - our own words
ONE = f"SELECT row_to_json(t)::text FROM ({TABLE} WHERE uuid = %s::text::uuid) t"  # noqa: S608
LIST = (
    f"SELECT json_agg(row_to_json(t))::text FROM ({TABLE} "  # noqa: S608
    "ORDER BY start_timestamp DESC, uuid LIMIT 20) t"
)
held = threading.local()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if not hasattr(held, "cursor"):
        connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
        held.cursor = connection.cursor(binary=True)
    path = environ["PATH_INFO"]
    uuid = path.rstrip("/").rpartition("/")[2]
    if uuid == "system_tasks":
        held.cursor.execute(LIST, prepare=True)
    else:
        held.cursor.execute(ONE, [uuid], prepare=True)
    body = held.cursor.fetchone()[0].encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]
