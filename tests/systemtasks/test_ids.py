"""The uuid of a SystemTask depends only on its name, in any process."""

import subprocess
import sys

from systemtasks.ids import system_task_uuid


def test_uuid_is_that_of_the_names_that_clients_know() -> None:
    # Kept by clients, and printed in the README: it must never change.
    assert str(system_task_uuid("demo.clean_sessions")) == "dd272968-2052-5815-9774-ce2d11bc3f3b"
    assert system_task_uuid("a", "b") == system_task_uuid("a:b") != system_task_uuid("a")


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
