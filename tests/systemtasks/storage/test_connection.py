"""Connections are named after their process, and unused ones are closed."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection as this_connection
from pytest_django import Settings

from systemtasks.models import TaskRun
from systemtasks.storage import connection as module
from systemtasks.storage.connection import LONGEST_NAME, name_connection, process_name
from tests.waiting import eventually
from tests.web import Web
from tests.workers import Worker, outcome, send

NAMES = """
SELECT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def names() -> list[str]:
    """Return the names of the other connections to the database, without their process ids."""
    with this_connection.cursor() as cursor:
        cursor.execute(NAMES)
        return sorted(name.rpartition(" ")[0] for (name,) in cursor.fetchall())


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_worker", None)


@pytest.mark.parametrize(
    ("argv", "role"),
    [
        (["/usr/bin/celery", "-A", "shop", "beat"], "beat"),
        (["/srv/manage.py", "migrate", "--plan"], "manage migrate"),
        (["/srv/manage.py"], "manage"),
        (["/srv/config/web.py", "--port", "8000"], "web"),
        (["/usr/lib/python3/django/__main__.py", "shell"], "django"),
        (["/usr/bin/gunicorn", "shop.wsgi"], "gunicorn"),
        ([""], ""),
    ],
)
def test_name_says_what_the_process_does(
    argv: list[str], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert process_name().startswith(f"systemtasks {role} {os.getpid()}@")


def test_name_of_a_worker_and_of_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    module.name_worker()
    assert process_name().startswith("systemtasks worker ")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert process_name().startswith("systemtasks worker's child 1@")


def test_name_is_short_enough_for_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h\u00f6st" * 40)
    assert len(process_name().encode()) == LONGEST_NAME
    assert process_name().isascii()


class Wrapper:
    """Django's wrapper of a connection."""

    vendor = "postgresql"

    def __init__(self, **options: Any) -> None:
        self.settings_dict: dict[str, Any] = {"NAME": "db", "OPTIONS": options}


def test_only_this_wrapper_is_named() -> None:
    wrapper = Wrapper(sslmode="require")
    shared = wrapper.settings_dict
    name_connection(wrapper)
    assert wrapper.settings_dict["OPTIONS"].keys() == {"sslmode", "fallback_application_name"}
    assert shared == {"NAME": "db", "OPTIONS": {"sslmode": "require"}}


@pytest.mark.parametrize("options", [{"pool": True}, {"fallback_application_name": "shop"}])
def test_pool_and_a_name_of_the_project_stay(options: dict[str, Any]) -> None:
    wrapper = Wrapper(**options)
    name_connection(wrapper)
    assert wrapper.settings_dict["OPTIONS"] == options


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_idle_child_closes_its_connection_and_opens_it_for_the_next_run(
    tmp_path: Path,
) -> None:
    options = ("--pool", "prefork", "--concurrency", "2", "--prefetch-multiplier", "1")
    include = "tests.tasks,tests.systemtasks.storage.closing_soon"
    with Worker(tmp_path / "worker.log", *options, include=include) as worker:
        sent = [send("tests.succeed", number) for number in range(4)]
        assert eventually(lambda: "systemtasks worker's child" in names()), names()
        ran = [outcome(worker, celery_id) for celery_id in sent]
        assert eventually(lambda: "systemtasks worker's child" not in names()), names()
        assert eventually(lambda: "systemtasks worker" in names()), names()  # it renews its lease
        last = send("tests.succeed", 5)
        assert eventually(lambda: "systemtasks worker's child" in names()), names()
        ran.append(outcome(worker, last))
    assert TaskRun.objects.count() == len(ran) == 5


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_web_server_names_its_connections(tmp_path: Path) -> None:
    import urllib.request

    with Web(tmp_path / "web.log") as web:
        with urllib.request.urlopen(f"{web.url}/-/health/ready/") as answer:
            assert answer.status == 204
        assert "systemtasks web" in names()
    assert django_settings.DATABASES["default"]["ENGINE"] == "config.postgres"


def test_seconds_that_are_none_are_refused(settings: Settings) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from systemtasks.conf import conf

    settings.SYSTEMTASKS = {"CONNECTION_IDLE_SECONDS": 0}
    with pytest.raises(ImproperlyConfigured, match="more than 0 seconds"):
        conf()
