"""Make and compute ids. Needs neither Django nor a database."""

import os
import time
from datetime import datetime
from functools import lru_cache
from random import Random
from uuid import UUID, uuid5

NAMESPACE = UUID("0fa4e439-1c75-4ae2-84df-7ac76d4e3817")
"""The namespace of every SystemTask's uuid. It never changes, because clients store the uuids."""

_random = Random()  # noqa: S311 - ids are no secrets
os.register_at_fork(after_in_child=_random.seed)


def full_name(name: str, uid: str) -> str:
    """Return `name`, or `name:uid` if there is a uid."""
    return f"{name}:{uid}" if uid else name


@lru_cache(maxsize=10_000)  # the writer asks three times a run
def system_task_uuid(name: str, uid: str = "") -> UUID:
    """Return the uuid of a SystemTask, which is the same in every environment.

    A name is a namespace of its own for its uids. So a task named `ldap:cleanup` has another uuid
    than the task `ldap` with the uid `cleanup`, although the full names are equal.
    """
    task = uuid5(NAMESPACE, name)
    return uuid5(task, uid) if uid else task


def new_id() -> str:
    """Return a new UUIDv7 as text: the time, to a quarter of a microsecond, and 62 random bits.

    The random numbers are of their own, and differ in each process: a task may seed Python's.
    """
    # Not by a library: uuid-utils takes a fifth of the time, and would save 1.6 microseconds of the
    # 100 that recording costs a task. It would be one more compiled package to install. Python's
    # own uuid7, from 3.14 on, has a counter of each process in place of the time below a
    # millisecond. So the ids of two processes would have no order within it.
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds << 16 | 7 << 12 | (rest << 12) // 1_000_000) << 64
    text = f"{value | 2 << 62 | _random.getrandbits(62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_uuid() -> UUID:
    """Return a new UUIDv7."""
    return UUID(new_id())


def first_id(moment: datetime) -> UUID:
    """Return the least UUIDv7 of a moment: no run that was sent later has a smaller id."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
