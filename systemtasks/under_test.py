"""Find out if this process runs tests.

A process that runs tests must not write to the configured database. Its connections lead there
before the test databases are made, and again after these are dropped. `testing.py` lets a test
record on purpose.
"""

import os
import sys
from pathlib import PurePath

from django.conf import settings

_under_test = False


def is_under_test() -> bool:
    """Return True if this process runs tests, or has run some.

    A process that a test starts does not count. A fork does: it has its parent's memory.
    """
    global _under_test
    if not _under_test:
        _under_test = _is_in_pytest() or _is_test_command() or _has_test_environment()
    return _under_test


def declare() -> None:
    """Make `is_under_test` return True from now on."""
    global _under_test
    _under_test = True


def _is_in_pytest() -> bool:
    # A process that a test starts inherits the variables, but has not imported pytest. Before 8.2,
    # pytest sets only the second variable, while a test runs.
    variables = ("PYTEST_VERSION", "PYTEST_CURRENT_TEST")
    return "pytest" in sys.modules and any(name in os.environ for name in variables)


def _is_test_command() -> bool:
    # The module is imported only to run the command. That happens after `AppConfig.ready()`, which
    # can only look at the arguments.
    if "django.core.management.commands.test" in sys.modules:
        return True
    program, *arguments = sys.argv or [""]
    return arguments[:1] == ["test"] and (
        PurePath(program).name in ("manage.py", "django-admin")
        or PurePath(program).parts[-2:] == ("django", "__main__.py")
    )


def _has_test_environment() -> bool:
    # `django.test.utils.setup_test_environment` is documented to set both.
    mail = sys.modules.get("django.core.mail")
    return hasattr(mail, "outbox") and "testserver" in settings.ALLOWED_HOSTS
