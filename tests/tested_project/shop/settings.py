"""Nothing here is about tests; SHOP_ variables say which project of this kind it is."""

import os
from pathlib import Path
from typing import Any

SECRET_KEY = "a-secret-key-of-a-project-that-only-tests-have"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.postgres",
    "systemtasks",
    "shop",
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["SHOP_DATABASE"],
        "HOST": os.environ.get("SHOP_HOST", ""),
        "USER": os.environ.get("SHOP_USER", ""),
        "PASSWORD": os.environ.get("SHOP_PASSWORD", ""),
    }
}
if Path(os.environ["SHOP_DATABASE"]).is_absolute():
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["SHOP_DATABASE"],
        }
    }
SYSTEMTASKS = {
    "JOURNAL_DIR": os.environ["SHOP_JOURNAL"],
    "ENABLED": bool(os.environ.get("SHOP_ENABLED", "1")),
}
CELERY_BROKER_URL = "memory://"
CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.01}
CELERY_RESULT_BACKEND = "cache+memory://"
CELERY_TASK_ALWAYS_EAGER = bool(os.environ.get("SHOP_EAGER"))
