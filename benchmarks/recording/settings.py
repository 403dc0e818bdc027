"""The service's own settings, with those of the mode in place of some."""

from benchmarks.recording import modes
from config import settings as service
from config.settings import *  # noqa: F403 - Django's settings are a module's names

_mode = modes.of_this_process()

INSTALLED_APPS = [*service.INSTALLED_APPS, *_mode.apps]
SYSTEMTASKS = {**service.SYSTEMTASKS, "ENABLED": _mode.recording}
globals().update(_mode.settings)
