"""The settings of the conventional stack: the defaults of `startproject` and of DRF."""

import os

from benchmarks.serving.settings import *  # noqa: F403 - Django's settings are a module's names
from config import settings as service

DATABASES = {
    "default": {
        **service.DATABASES["default"],
        "OPTIONS": {},
        "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "600")),
        "CONN_HEALTH_CHECKS": False,
    }
}
ROOT_URLCONF = "benchmarks.serving.conventional_urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
# This is the default. The service's settings have another one.
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.openapi.AutoSchema"}
