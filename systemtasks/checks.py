"""What `manage.py check` says of this app's settings."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from systemtasks.conf import conf


@register()
def check_settings(**_: Any) -> Sequence[CheckMessage]:  # noqa: ANN401 - Django's own signature
    """Every setting in SYSTEMTASKS is known and has the right type."""
    try:
        conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="systemtasks.E001")]
    return []
