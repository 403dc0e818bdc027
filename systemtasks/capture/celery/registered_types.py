"""Encode values as kombu does, by the registry to which a project adds its own types."""

from typing import Any

from kombu.utils import json

from systemtasks.conf import conf
from systemtasks.own_logger import own_logger
from systemtasks.runs.exceptions import log_handled
from systemtasks.runs.kinds import full_name

logger = own_logger(__name__)

_large: list[type] = []
"""The types that had too large a value. Encoding another one would only take time."""


def encode(value: object) -> str | None:
    """Return the JSON that kombu writes for this value, or None if its type is not registered.

    Return None as well if it is too large, or if the project's own function raised. Subclasses are
    not encoded: kombu would make the base class of them.
    """
    kind = type(value)
    # kombu's list of the types has no public name. Types are compared by `is`, as in `kinds`.
    types: Any = json._encoders  # type: ignore[attr-defined]
    if not any(kind is one for one in tuple(types)) or any(kind is one for one in _large):
        return None
    try:
        text: str = json.dumps(value)
    except Exception:  # noqa: BLE001 - it is the project's own code
        log_handled(logger, "A %s among the arguments is not encoded", full_name(kind))
        return None
    if len(text) > conf().ARGUMENTS_LIMIT:
        _large.append(kind)
        return None
    return text
