"""The settings of a project with the user model that USER_MODEL names."""

import os

from tests.systemtasks import plain_admin_settings as plain
from tests.systemtasks.plain_admin_settings import *  # noqa: F403 - Django's settings are names

INSTALLED_APPS = [*plain.INSTALLED_APPS, "tests.events.accounts"]
AUTH_USER_MODEL = f"accounts.{os.environ['USER_MODEL']}"
AUTHENTICATION_BACKENDS = [os.environ["BACKEND"]]
DATABASES = {"default": {**plain.DATABASES["default"], "TEST": {"NAME": "test_accounts"}}}
