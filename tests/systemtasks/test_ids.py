"""The uuid of a SystemTask depends only on its name, in any process. Ids are UUIDv7."""

import random
import subprocess
import sys
import time
from uuid import RFC_4122, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemtasks.ids import NAMESPACE, new_id, system_task_uuid


def test_uuid_is_that_of_the_names_that_clients_know() -> None:
    # Kept by clients, and printed in the README: it must never change.
    assert str(system_task_uuid("demo.clean_sessions")) == "dd272968-2052-5815-9774-ce2d11bc3f3b"
    assert str(system_task_uuid("demo.import_users")) == str(uuid5(NAMESPACE, "demo.import_users"))


@given(st.lists(st.tuples(st.text("a:/", min_size=1), st.text("a:/")), unique=True))
def test_no_two_tasks_have_the_same_uuid(names: list[tuple[str, str]]) -> None:
    assert len({system_task_uuid(*name) for name in names}) == len(names)
    assert system_task_uuid("ldap:cleanup") != system_task_uuid("ldap", "cleanup")


def test_new_ids_are_uuids_of_version_7_that_are_in_order_and_of_this_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000
    uuids = [UUID(text) for text in ids]

    assert len(set(ids)) == len(ids)
    assert [str(uuid) for uuid in uuids] == ids
    assert {(uuid.version, uuid.variant) for uuid in uuids} == {(7, RFC_4122)}
    assert all(before <= uuid.int >> 80 <= after for uuid in uuids)
    # Two within a quarter of a microsecond are not in order.
    moments = [uuid.int >> 64 for uuid in uuids]
    assert moments == sorted(moments)


def test_new_ids_do_not_depend_on_what_a_task_makes_of_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_521_600_000_000_000)
    ids = set()
    for _ in range(100):
        random.seed(7)
        ids.add(new_id())

    assert len(ids) == 100


def test_uuid_is_found_without_django() -> None:
    script = (
        "import sys; from systemtasks.ids import full_name, system_task_uuid; "
        "print(system_task_uuid('shop.charge', 'eu'), full_name('shop.charge', 'eu'), "
        "sorted({'django', 'psycopg', 'celery'} & sys.modules.keys()))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert printed == f"{system_task_uuid('shop.charge', 'eu')} shop.charge:eu []\n"


def test_new_ids_of_forked_processes_differ_in_their_random_bits() -> None:
    """A worker's children begin with the same memory, and may send at the same moment."""
    script = (
        "import os, time; from systemtasks.ids import new_id; "
        "time.time_ns = lambda: 1_795_521_600_000_000_000; new_id()\n"
        "for _ in range(3):\n"
        "    if not os.fork(): print(new_id(), flush=True); os._exit(0)\n"
        "    os.wait()\n"
        "print(new_id())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()

    assert len(printed) == len(set(printed)) == 4
