"""The service's settings without django-unfold, as another project may have them."""

from typing import Any

from config import settings

for name in dir(settings):
    if name.isupper():
        globals()[name] = getattr(settings, name)

OURS = {"unfold.apps.BasicAppConfig", "config.admin_app.AdminConfig", "config"}
INSTALLED_APPS = [
    "django.contrib.admin",
    *(app for app in settings.INSTALLED_APPS if app not in OURS),
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        **settings.DATABASES["default"],
        "ENGINE": "django.db.backends.postgresql",
        "TEST": {"NAME": "test_plain_admin"},
    }
}
DATABASE_ROUTERS: list[str] = []
