"""Compute the ids of SystemTasks. Needs neither Django nor a database."""

from functools import lru_cache
from uuid import UUID, uuid5

NAMESPACE = UUID("0fa4e439-1c75-4ae2-84df-7ac76d4e3817")
"""The namespace of every SystemTask's uuid. It never changes, because clients store the uuids."""


def full_name(name: str, uid: str) -> str:
    """Return `name`, or `name:uid` if there is a uid."""
    return f"{name}:{uid}" if uid else name


@lru_cache(maxsize=10_000)  # the writer asks three times a run
def system_task_uuid(name: str, uid: str = "") -> UUID:
    """Return the uuid of a SystemTask, which is the same in every environment."""
    return uuid5(NAMESPACE, full_name(name, uid))
