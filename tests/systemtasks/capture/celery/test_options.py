"""A task's options set how it is recorded."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Task
from django.conf import settings

from systemtasks.capture.celery.options import default_info, task_info
from systemtasks.conf import conf
from systemtasks.runs.records import RunRecord
from systemtasks.states import State
from tests.systemtasks.capture.celery.test_signals import events
from tests.systemtasks.conftest import MakeTask


@pytest.fixture(autouse=True)
def _nothing_is_cached() -> Iterator[None]:
    yield
    task_info.cache_clear()


def sync(source: str, password: str = "", *, dry: bool = False, pin: int = 0) -> None:
    """Sync a source with
    its users.

    It takes a while.
    """  # noqa: D205


def test_options_of_a_task_without_any_are_the_defaults(make_task: MakeTask) -> None:
    info = task_info(make_task(sync, name="tests.sync"))

    assert (info.name, info.description) == ("tests.sync", "Sync a source with its users.")
    assert info.expires_after == timedelta(days=conf().EXPIRES_AFTER_DAYS)
    assert (info.recorded, info.save_on_success, info.uid) == (True, True, None)
    assert (info.masked, info.masked_positions) == (frozenset(), (1,))


def test_task_that_is_not_registered_here_has_the_defaults() -> None:
    info = default_info("tests.elsewhere\0")

    assert info.name == "tests.elsewhere\N{REPLACEMENT CHARACTER}"
    assert (info.expires_after, info.recorded) == (timedelta(days=30), True)


def test_description_may_be_an_option(make_task: MakeTask) -> None:
    info = task_info(make_task(sync, systemtasks_description="Everything at\nonce."))

    assert info.description == "Everything at\nonce."


def test_options_may_be_attributes_of_a_class(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    class Syncing(Task):  # type: ignore[type-arg]
        systemtasks_description = "Of the class."

        @staticmethod
        def systemtasks_uid(source: str, *_: Any, **__: Any) -> str:
            return source

    make_task(sync, base=Syncing).apply(args=("ldap",), kwargs={"dry": True})

    assert (records[0].uid, records[0].description) == ("ldap", "Of the class.")


def test_uid_is_made_of_the_arguments(records: list[RunRecord], make_task: MakeTask) -> None:
    task = make_task(sync, systemtasks_uid=lambda source, *_, **__: source)
    task.apply(args=("ldap", "hunter2"))
    task.apply(kwargs={"source": "saml", "dry": True})

    assert [(record.uid, record.first_uid) for record in records] == [
        ("ldap", "ldap"),
        ("saml", "saml"),
    ]


@pytest.mark.parametrize(
    ("uid", "made"),
    [
        (lambda source: None, ""),
        (lambda source: 7, "7"),
        (lambda source: UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (lambda source: (source, 7), "('ldap', 7)"),
        (lambda source: object(), ""),
        (lambda source: f"{source}\0" + "x" * 300, "ldap\N{REPLACEMENT CHARACTER}" + "x" * 250),
        (lambda: "too few parameters", ""),
    ],
)
def test_odd_uids_are_made_to_fit(
    records: list[RunRecord], make_task: MakeTask, uid: Any, made: str
) -> None:
    make_task(sync, systemtasks_uid=uid).apply(args=("ldap",))

    assert records[0].uid == made
    assert records[0].state == State.SUCCESS


def test_uid_of_a_call_with_wrong_arguments_is_none(
    records: list[RunRecord], make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(sync, systemtasks_uid=lambda source: source)
    task.apply()

    assert (records[0].uid, records[0].state) == ("", State.FAILURE)
    assert f"systemtasks_uid of {task.name} raised" in caplog.text


def test_task_that_wants_no_record_has_none_and_nothing_happens_to_the_one_around_it(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    inner = make_task(lambda: 1 / 0, systemtasks_record=False)
    outer = make_task(lambda: inner.apply() and None)
    inner.apply()
    outer.apply()
    (record,) = records

    assert (record.name, record.state, events(record)) == (outer.name, State.SUCCESS, [])


def test_success_may_be_left_unsaved_and_everything_else_is_saved(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    make_task(lambda: None, systemtasks_save_on_success=False).apply()
    make_task(lambda: 1 / 0, systemtasks_save_on_success=False).apply()
    make_task(lambda: None).apply()

    assert [record.save_run for record in records] == [False, True, True]


@pytest.mark.parametrize("masked", [["pin", "source"], ("source", "pin"), {"pin", "source"}])
def test_arguments_are_masked_by_name_and_by_position(
    records: list[RunRecord], make_task: MakeTask, masked: Any
) -> None:
    task = make_task(sync, systemtasks_masked=masked)
    task.apply(args=("ldap", "hunter2"), kwargs={"dry": True, "pin": 1234})
    task.apply(kwargs={"source": "ldap", "password": "hunter2"})
    task.apply(kwargs={"dry": False})

    assert [(record.args, record.kwargs, record.arguments_intact) for record in records] == [
        ('["********","********"]', '{"dry":true,"pin":"********"}', False),
        ("[]", '{"source":"********","password":"********"}', False),
        ("[]", '{"dry":false}', True),
    ]


def test_positions_of_a_bound_task_do_not_count_the_task(
    records: list[RunRecord], make_task: MakeTask
) -> None:
    def bound(self: object, source: str, pin: int) -> None: ...

    make_task(bound, bind=True, systemtasks_masked=["pin"]).apply(args=("ldap", 1234))

    assert records[0].args == '["ldap","********"]'


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("description", 7),
        ("record", "no"),
        ("save_on_success", 0),
        ("uid", "source"),
        ("masked", "pin"),
        ("masked", ["pin", 7]),
        ("expires_after", 30),
    ],
)
def test_wrong_option_gives_way_to_its_default_and_is_said(
    make_task: MakeTask, caplog: pytest.LogCaptureFixture, option: str, wrong: object
) -> None:
    task = make_task(sync, **{f"systemtasks_{option}": wrong})
    plain = make_task(sync)

    assert task_info(task) == replace(task_info(plain), name=task.name)
    assert f"systemtasks_{option} of {task.name} must be" in caplog.text
    assert repr(wrong) in caplog.text


def test_the_apps_start_where_a_task_takes_no_type_arguments() -> None:
    """Simulate Celery 5.6: its classes are not generic at run time."""
    start = (
        "import celery, django\n"
        "if hasattr(celery.Task, '__class_getitem__'): del celery.Task.__class_getitem__\n"
        "django.setup()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start],
        cwd=settings.BASE_DIR,
        env=dict(os.environ, DJANGO_SETTINGS_MODULE="config.settings"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
