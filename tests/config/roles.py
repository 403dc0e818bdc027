"""Create roles for a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.projects import query

PASSWORD = "no-secret"


@contextmanager
def role(database: str, name: str = "own_role") -> Iterator[str]:
    """Yield the database's URL for a role that owns nothing in it."""
    query(database, f"DROP ROLE IF EXISTS {name}")
    query(database, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    try:
        yield f"postgresql://{name}:{PASSWORD}@{database.partition('@')[2]}"
    finally:
        query(database, f"DROP OWNED BY {name} CASCADE")
        query(database, f"DROP ROLE {name}")
