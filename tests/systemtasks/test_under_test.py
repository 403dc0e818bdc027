"""A process that runs tests is recognized by documented features of Django and pytest only."""

import os
import sys
from types import ModuleType

import pytest
from django.core import mail
from django.test.utils import setup_test_environment, teardown_test_environment

from systemtasks import under_test
from systemtasks.under_test import is_under_test


@pytest.fixture(autouse=True)
def _real_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process look as if it did not run tests."""
    monkeypatch.setattr(under_test, "_under_test", False)
    monkeypatch.delitem(sys.modules, "pytest")
    monkeypatch.delattr(mail, "outbox")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/celery", "-A", "test", "worker"])


def test_other_process_runs_no_tests() -> None:
    assert not is_under_test()


@pytest.mark.parametrize("other", ["PYTEST_VERSION", "PYTEST_CURRENT_TEST"])
def test_process_in_which_pytest_runs_is_known_by_either_variable(
    monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setitem(sys.modules, "pytest", pytest)
    monkeypatch.delenv(other)
    assert is_under_test()


def test_process_that_pytest_starts_is_a_real_one() -> None:
    assert "PYTEST_VERSION" in os.environ
    assert not is_under_test()


@pytest.mark.parametrize(
    ("argv", "known"),
    [
        (["manage.py", "test"], True),
        (["/srv/shop/manage.py", "test", "shop"], True),
        (["/usr/bin/django-admin", "test"], True),
        (["/lib/python3/site-packages/django/__main__.py", "test"], True),
        (["manage.py", "migrate", "test"], False),
        (["manage.py"], False),
        (["worker.py", "test"], False),
        (["/lib/python3/site-packages/celery/__main__.py", "test"], False),
        ([], False),
    ],
)
def test_command_test_is_known_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], known: bool
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert is_under_test() is known


def test_command_test_of_another_name_is_known_by_its_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "django.core.management.commands.test"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert is_under_test()


def test_test_environment_is_known() -> None:
    """The environment is Django's own, so this test fails if Django changes it."""
    mail.outbox = []
    teardown_test_environment()
    try:
        assert not is_under_test()
    finally:
        setup_test_environment()
    assert is_under_test()


def test_memory_as_the_place_of_mails_is_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    monkeypatch.setattr("django.conf.settings.ALLOWED_HOSTS", ["*"])
    assert not is_under_test()


def test_process_that_has_run_tests_never_is_a_real_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pytest", pytest)
    assert is_under_test()
    monkeypatch.delitem(sys.modules, "pytest")
    assert is_under_test()


def test_test_that_asks_for_a_record_makes_its_process_one() -> None:
    under_test.declare()
    assert is_under_test()


def test_forked_child_is_of_the_tests_too() -> None:
    under_test.declare()
    if (child := os.fork()) == 0:
        os._exit(0 if is_under_test() else 1)
    assert os.waitpid(child, 0)[1] == 0
