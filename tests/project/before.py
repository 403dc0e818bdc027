"""The service's settings as they were before it had a schema of its own."""

from config import settings as service
from config.settings import *  # noqa: F403 - Django's settings are a module's names

INSTALLED_APPS = [app for app in service.INSTALLED_APPS if app != "config"]
DATABASES = {"default": {**service.DATABASES["default"], "ENGINE": "django.db.backends.postgresql"}}
DATABASE_ROUTERS = []
