"""The service's own settings. No row that `fill.py` makes expires."""

from benchmarks.scale import DAYS
from config import settings as service
from config.settings import *  # noqa: F403 - Django's settings are a module's names

SYSTEMTASKS = {**service.SYSTEMTASKS, "EXPIRES_AFTER_DAYS": DAYS + 1}
LOG_LEVEL = "ERROR"
LOGGING = {**service.LOGGING, "root": {"handlers": ["console"], "level": LOG_LEVEL}}
