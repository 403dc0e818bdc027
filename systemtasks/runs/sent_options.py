"""Read the options of a message, so that it can be sent again as it was.

The thread that sends or runs a task takes them from Celery's message or request. The thread of the
writer makes the JSON of their column. A value that is not on record as it was, because it was
masked or is too large, is named under `missing` there. `types` and `header_types` list the values
of the arguments and of the headers that JSON has no type for (see `typed_values`).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from systemtasks.runs.arguments import plain_keywords
from systemtasks.runs.kinds import is_of, number
from systemtasks.runs.records import NAME_LIMIT
from systemtasks.runs.secret_texts import OwnSecrets, mask_text
from systemtasks.runs.typed_values import split
from systemtasks.runs.values import Cleaner, clean_text, moment

PREFIX = "systemtasks_"
"""The prefix of this app's own headers, which are made anew for each message."""
SENT = "systemtasks_sent"
"""The header with the time of sending, which every message has that this app has seen sent."""
QUEUE = "systemtasks_queue"
"""The key, in a request, of the queue from which the worker took the message.

This and the next one are no headers. Celery copies unknown keys of a request to the message of a
retry, and there they are removed.
"""
CONTENT_TYPE = "systemtasks_content_type"
"""The key, in a request, of the type of the message's body, if it is not JSON."""

HEADERS_LIMIT = 4096
"""The maximum size of a message's own headers, in bytes of JSON."""
TEXT_LIMIT = 4096  # characters

CELERY_KEYS = frozenset(
    (
        "_children",
        "_protected",
        "args",
        "argsrepr",
        "callbacks",
        "called_directly",
        "chain",
        "chord",
        "compression",
        "correlation_id",
        "delivery_info",
        "errbacks",
        "eta",
        "expires",
        "group",
        "group_index",
        "headers",
        "hostname",
        "id",
        "ignore_result",
        "is_eager",
        "kwargs",
        "kwargsrepr",
        "lang",
        "logfile",
        "loglevel",
        "origin",
        "parent_id",
        "properties",
        "replaced_task_nesting",
        "reply_to",
        "retries",
        "root_id",
        "shadow",
        "soft_time_limit",
        "stamped_headers",
        "stamps",
        "task",
        "taskset",
        "time_limit",
        "timelimit",
        "utc",
        "celery_beat_task",
    )
)
"""The keys of Celery's messages and requests, of which some are remade for each message."""
BROKER_KEYS = frozenset(
    (
        "x-death",
        "x-delivery-count",
        "x-acquired-count",
        "redelivered",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    )
)
"""The headers that RabbitMQ adds to a message."""
_NOT_OWN = CELERY_KEYS | BROKER_KEYS
_NONE: dict[str, Any] = {}


def fields_of(request: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return the options in Celery's message or request. Most messages have few of them.

    `where` is its `delivery_info`. A value may be of any type.
    """
    fields = {}
    get = request.get
    if is_of(where, dict):
        if exchange := dict.get(where, "exchange"):
            fields["exchange"] = exchange
            fields["routing_key"] = dict.get(where, "routing_key")
        if (priority := dict.get(where, "priority")) is not None:
            fields["priority"] = priority
    if (expires := get("expires")) is not None:
        fields["expires"] = expires
    if (limits := get("timelimit")) is not None:
        _add_time_limits(fields, limits)
    if (content_type := get(CONTENT_TYPE)) is not None:
        fields["content_type"] = content_type
    if (group := get("group")) is not None:
        fields["group"] = group
        if is_of(chord := get("chord"), dict):
            fields["chord"] = _id_of(chord)
    if headers := _headers(request):
        fields.update(_headers_fields(headers))
    return _plain(fields) if fields else fields


def _id_of(signature: dict[str, Any]) -> object:
    """Return the Celery id with which a signature will be sent, or None."""
    options = dict.get(signature, "options")
    return dict.get(options, "task_id") if is_of(options, dict) else None


def _add_time_limits(fields: dict[str, Any], limits: object) -> None:
    if (type(limits) is list or type(limits) is tuple) and len(limits) == 2:
        hard, soft = limits
        if hard is not None:
            fields["time_limit"] = hard
        if soft is not None:
            fields["soft_time_limit"] = soft


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with short texts and numbers only."""
    for name, value in fields.items():
        kind = type(value)  # compared by identity, because its metaclass may have code of its own
        is_short = kind is str and len(value) <= TEXT_LIMIT
        if not is_short and kind is not int and kind is not float:
            fields[name] = Cleaner(TEXT_LIMIT, masks=False).clean(value)
    return fields


def without_own_secrets(fields: dict[str, Any], own: OwnSecrets) -> dict[str, Any]:
    """Return the fields without the headers that contain one of these secrets."""
    texts = (fields.get("headers"), fields.get("header_types"))
    if not any(type(text) is str and own.is_in(text) for text in texts):
        return fields
    missing = _names(fields)
    headers = _loaded(fields.get("headers"))
    types = _types(fields, headers)
    headers, types = _without_secrets(headers, types, own, missing, masks=False)
    return {**fields, "header_types": None, **_as_fields(headers, types, missing)}


def _headers(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that are neither Celery's, nor the broker's, nor this app's."""
    given = request.get("headers")
    # In Celery's own request, `headers` are all that it does not know: those that were sent, too.
    if type(given) is dict and SENT in given and all(map(_is_of_app, given)):
        return _NONE
    # Celery's request has them among its own attributes, and again as its `headers`. Sentry's SDK
    # puts further ones there, and message protocol 1 has them there only.
    names = request.keys() - _NOT_OWN
    headers = {name: request[name] for name in names if _is_own(name)} if names else _NONE
    if is_of(given, dict) and (more := dict.keys(given) - names - _NOT_OWN):
        more_headers = {name: dict.get(given, name) for name in more if _is_own(name)}
        return {**more_headers, **headers}
    return headers


def _is_of_app(name: object) -> bool:
    return type(name) is str and name.startswith(PREFIX)


def _is_own(name: object) -> bool:
    return type(name) is str and not name.startswith(PREFIX)


def _headers_fields(headers: dict[str, Any]) -> dict[str, str]:
    """Return the headers as JSON, their types, and the names of those that are missing there."""
    if (plain := plain_keywords(headers, HEADERS_LIMIT)) is not None:
        return {"headers": plain}
    kept: dict[str, Any] = {}
    types: list[Any] = []
    missing, room = [], HEADERS_LIMIT
    for name, value in headers.items():
        cleaner = Cleaner(TEXT_LIMIT, keeps_types=True)
        own_types: list[Any] = []
        cleaned = split(cleaner.clean({name: value}), own_types)
        size = len(orjson.dumps(cleaned)) + len(orjson.dumps(own_types))
        if cleaner.intact and size <= room and cleaned.keys() == {name}:
            kept.update(cleaned)
            types += own_types
            room -= size
        else:
            missing.append(clean_text(name, NAME_LIMIT))
    return _as_fields(kept, types, missing)


def _as_fields(headers: dict[str, Any], types: list[Any], missing: list[str]) -> dict[str, str]:
    """Return the fields for these headers. The names of missing ones are one a line."""
    fields = {
        "headers": orjson.dumps(headers).decode(),
        "missing": "\n".join(missing)[:TEXT_LIMIT],
    }
    return {**fields, "header_types": orjson.dumps(types).decode()} if types else fields


def column(
    fields: object,
    sent: datetime | None,
    own: OwnSecrets | None,
    *,
    masks: bool,
    types: str | None = None,
) -> str:
    """Return the JSON of the column for the fields of a line.

    `own` are the secrets of the run's arguments, and `types` is the JSON of their types. With
    `masks`, headers are searched for secrets.
    """
    options: dict[str, Any] = {"types": orjson.loads(types)} if types else {}
    if isinstance(fields, dict) and fields:
        options |= _options(fields, sent, own, masks=masks)
    return orjson.dumps(options).decode()


def _options(
    fields: dict[str, Any], sent: datetime | None, own: OwnSecrets | None, *, masks: bool
) -> dict[str, Any]:
    names = _names(fields)
    headers = _loaded(fields.get("headers"))
    types = _types(fields, headers)
    headers, types = _without_secrets(headers, types, own, names, masks=masks)
    missing = [f"the header {name!r}" for name in names]
    options: dict[str, Any] = {"headers": headers} if headers else {}
    if types:
        options["header_types"] = types
    for name, read in _READERS.items():
        if (value := fields.get(name)) is None:
            continue
        try:
            options[name] = read(value)
        except TypeError:
            missing.append(f"the {name.replace('_', ' ')}")
    if (expires := fields.get("expires")) is not None:
        end = moment(expires)
        if end is None or sent is None or end <= sent:
            missing.append("the time until it expires")
        else:
            options["expires"] = (end - sent).total_seconds()
    if missing:
        options["missing"] = missing
    return options


def _short_text(value: object) -> str:
    if type(value) is not str or len(value) > NAME_LIMIT:
        raise TypeError("not a short text")
    return clean_text(value, NAME_LIMIT)


_READERS: dict[str, Callable[[object], object]] = {
    "queue": _short_text,
    "exchange": _short_text,
    "routing_key": _short_text,
    "content_type": _short_text,
    # The group whose message it is, and the callback of the chord whose header that group is.
    "group": _short_text,
    "chord": _short_text,
    "priority": number,
    "time_limit": number,
    "soft_time_limit": number,
}
"""Functions that return a field as it is kept. They raise TypeError for a value of no use."""


def _names(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of the headers that are missing."""
    names = fields.get("missing")
    return [name for name in names.split("\n") if name] if type(names) is str else []


def _loaded(text: object) -> dict[str, Any]:
    if type(text) is not str or "\\u0000" in text:
        return {}
    loaded = orjson.loads(text)
    return loaded if type(loaded) is dict else {}


def _types(fields: Mapping[str, Any], headers: dict[str, Any]) -> list[Any]:
    """Return the types of these headers, as `typed_values` lists them."""
    text = fields.get("header_types")
    types = orjson.loads(text) if type(text) is str else []
    return [one for one in types if one[0][0] in headers]


def _without_secrets(
    headers: dict[str, Any],
    types: list[Any],
    own: OwnSecrets | None,
    missing: list[str],
    *,
    masks: bool,
) -> tuple[dict[str, Any], list[Any]]:
    """Return the headers and types without those of secrets, whose names go to `missing`."""
    if not headers or not (masks or own):
        return headers, types
    kept, kept_types = {}, []
    for name, value in headers.items():
        own_types = [one for one in types if one[0][0] == name]
        text = orjson.dumps([value, *own_types]).decode()
        if (masks and mask_text(text) != text) or (own is not None and own.is_in(text)):
            missing.append(name)
        else:
            kept[name] = value
            kept_types += own_types
    return kept, kept_types
