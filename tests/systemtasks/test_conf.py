"""A setting that is wrong is found by `manage.py check`, before a worker starts."""

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from systemtasks.checks import check_settings
from systemtasks.conf import conf


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"EXPIRY": 1}, "'EXPIRY'] is not a setting"),
        ({"EXPIRES_AFTER_DAYS": timedelta(days=30)}, "must be float"),
        ({"EXPIRES_AFTER_DAYS": 9_999_999}, "from 0 to 36500"),
        ({"EXPIRES_AFTER_DAYS": float("nan")}, "from 0 to 36500"),
        ({"MOST_WAITING": -1}, "0 or more"),
        ({"BATCH_LIMIT": "many"}, "must be int"),
        ({"BATCH_LIMIT": True}, "must be int"),
        ({"WARNING_FROM_LOGS": 1}, "must be bool"),
        ({"DATABASE": "elsewhere"}, "an alias in DATABASES"),
        ({"RECORD_LOG_LEVEL": "LOUD"}, "a level of logging, not 'LOUD'"),
        ({"KNOWN_FROM_START": "all"}, "scheduled, registered or none"),
        ({"RUNNING_INTERVAL": 0}, "more than 0 seconds"),
        ({"LEASE_SECONDS": -1.0}, "more than 0 seconds"),
        ({"LEASE_SECONDS": float("nan")}, "more than 0 seconds"),
        ({"LEASE_SECONDS": float("inf")}, "more than 0 seconds"),
        ({"PENDING_BYTES": 0}, "at least 1"),
        ({"TEXT_LIMIT": -1}, "at least 1"),
        ({"HIDDEN_KEYS": "(PASS"}, "a regular expression"),
        ({"SENDER_CONTEXT": "nowhere"}, "the dotted path of a function"),
        ({"SENDER_CONTEXT": "tests.nowhere.context"}, "No module named 'tests.nowhere'"),
        ({"SENDER_CONTEXT": "tests.tasks.nothing"}, "the dotted path of a function"),
        ({"SENDER_CONTEXT": "systemtasks.storage.rows.TRIES"}, "which can be called"),
    ],
)
def test_wrong_setting_is_an_error_that_names_it(
    settings: Settings, given: dict[str, Any], said: str
) -> None:
    settings.SYSTEMTASKS = given
    (error,) = check_settings()

    assert next(iter(given)) in error.msg
    assert said in error.msg


def test_settings_override_defaults(settings: Settings) -> None:
    settings.SYSTEMTASKS = {
        "EXPIRES_AFTER_DAYS": 0,
        "BATCH_INTERVAL": 1,
        "SENDER_CONTEXT": "tests.tasks.succeed",
    }

    assert check_settings() == []
    assert conf().expires_after is None
    assert conf().BATCH_INTERVAL == 1
    assert conf().BATCH_LIMIT == 500
