"""Give a worker Django's pool of connections to Postgres. The worker loads this by `--include`."""

from django.conf import settings

settings.DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
settings.DATABASES["default"]["CONN_MAX_AGE"] = 0  # required by Django
settings.DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 4}
