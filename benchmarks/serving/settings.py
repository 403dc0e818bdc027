"""The settings of the service, and the app of the conventional stack's tokens."""

from config import settings as service
from config.settings import *  # noqa: F403 - Django's settings are a module's names

INSTALLED_APPS = [*service.INSTALLED_APPS, "rest_framework.authtoken"]
