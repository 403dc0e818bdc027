"""The service's settings with django-jazzmin instead of django-unfold, as a project may have it."""

from tests.systemtasks import plain_admin_settings as plain
from tests.systemtasks.plain_admin_settings import *  # noqa: F403 - Django's settings are names

INSTALLED_APPS = ["jazzmin", *plain.INSTALLED_APPS]
DATABASES = {"default": {**plain.DATABASES["default"], "TEST": {"NAME": "test_jazzmin"}}}
