"""Tells a process that runs tests from a real one.

Under test, the configured database is not the process's own to write to: its connections lead there
until the test databases are made, and again once these are dropped. See `testing.py` for what a
test can ask for.
"""

import os
import sys
from pathlib import PurePath

from django.conf import settings

_under_test = False


def is_under_test() -> bool:
    """Return True if this process runs tests, or has run some.

    A process that tests start is a real one, unless it is a fork: that has its parent's memory.
    """
    global _under_test
    if not _under_test:
        _under_test = _is_in_pytest() or _is_test_command() or _has_test_environment()
    return _under_test


def declare() -> None:
    """Say that this process runs tests, whatever it looks like."""
    global _under_test
    _under_test = True


def _is_in_pytest() -> bool:
    # Processes that tests start inherit the variables, but have not imported pytest. Without its
    # own variable (before pytest 8.2), there is the one of the test that runs.
    variables = ("PYTEST_VERSION", "PYTEST_CURRENT_TEST")
    return "pytest" in sys.modules and any(name in os.environ for name in variables)


def _is_test_command() -> bool:
    # The command's module is imported only to run it, but after `AppConfig.ready()`.
    if "django.core.management.commands.test" in sys.modules:
        return True
    program, *arguments = sys.argv or [""]
    return arguments[:1] == ["test"] and (
        PurePath(program).name in ("manage.py", "django-admin")
        or PurePath(program).parts[-2:] == ("django", "__main__.py")
    )


def _has_test_environment() -> bool:
    # What `django.test.utils.setup_test_environment` is documented to make.
    mail = sys.modules.get("django.core.mail")
    return hasattr(mail, "outbox") and "testserver" in settings.ALLOWED_HOSTS
