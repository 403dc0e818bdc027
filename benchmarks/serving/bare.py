"""The settings of the bare view set: those of the service, without its middleware."""

from config.settings import *  # noqa: F403 - Django's settings are a module's names

MIDDLEWARE = []
ROOT_URLCONF = "benchmarks.serving.bare_urls"
