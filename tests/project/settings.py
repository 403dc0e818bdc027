"""The settings of the project; DATABASE_URL, BROKER_URL and CUSTOM_USERS say the rest."""

import os
from typing import Any

from kombu import Exchange, Queue
from psycopg.conninfo import conninfo_to_dict


def _database(url: str) -> dict[str, Any]:
    parts = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "PASSWORD": parts["password"],
        "HOST": parts["host"],
        "OPTIONS": {"options": parts.get("options", "")},
    }


SECRET_KEY = "the-projects-own"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "systemtasks",
]
if os.environ.get("CUSTOM_USERS"):
    INSTALLED_APPS += ["tests.project.accounts"]
    AUTH_USER_MODEL = "accounts.User"
if os.environ.get("BEAT_IN_DATABASE"):
    INSTALLED_APPS += ["django_celery_beat"]
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E408", "admin.E409", "admin.E410"]  # it has no pages
DATABASES = {"default": _database(os.environ["DATABASE_URL"])}
DATABASE_ROUTERS = os.environ.get("ROUTER", "").split()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
CELERY_BROKER_URL = os.environ["BROKER_URL"]
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": os.environ["KEY_PREFIX"]}
if os.environ["BROKER_URL"].startswith("amqp:"):
    # Another declaration of them is refused.
    CELERY_TASK_QUEUES = [
        Queue("celery"),
        Queue("quorum", queue_arguments={"x-queue-type": "quorum"}),
        Queue("priority", queue_arguments={"x-max-priority": 5}),
        Queue("feeds", Exchange("feeds", type="topic"), routing_key="feed.#"),
    ]
SYSTEMTASKS: dict[str, Any] = {"JOURNAL_DIR": os.environ["JOURNAL_DIR"], "LEASE_SECONDS": 600}
if _record := os.environ.get("RECORD_DATABASE_URL"):
    DATABASES["record"] = _database(_record)
    SYSTEMTASKS["DATABASE"] = "record"
