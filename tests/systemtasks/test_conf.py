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
        ({"EXPIRES_AFTER": 30}, "must be"),
        ({"EXPIRES_AFTER": timedelta(days=9_999_999)}, "from 0 to 36500 days"),
        ({"BATCH_LIMIT": "many"}, "must be int"),
        ({"BATCH_LIMIT": True}, "must be int"),
        ({"WARNING_FROM_LOGS": 1}, "must be bool"),
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
    settings.SYSTEMTASKS = {"EXPIRES_AFTER": None, "BATCH_INTERVAL": 1}

    assert check_settings() == []
    assert conf().EXPIRES_AFTER is None
    assert conf().BATCH_INTERVAL == 1
    assert conf().BATCH_LIMIT == 500
