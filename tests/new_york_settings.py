"""The settings of a project with New York's local time and ATOMIC_REQUESTS."""

from config.settings import *  # noqa: F403
from config.settings import DATABASES

USE_TZ = False
TIME_ZONE = "America/New_York"
DATABASES["default"]["ATOMIC_REQUESTS"] = True
DATABASES["default"]["TEST"] = {"NAME": "test_new_york"}
