"""Render responses as JSON."""

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

# DRF writes Z, and not +00:00, for a time in UTC.
OPTIONS = orjson.OPT_UTC_Z
_encode_other = JSONEncoder().default


class ORJSONRenderer(JSONRenderer):
    """DRF's JSON renderer with orjson as its encoder, which is several times as fast."""

    # A project's settings of these would change what orjson refuses, and nothing else.
    ensure_ascii = False
    compact = True
    strict = True

    def render(
        self,
        data: Any,  # noqa: ANN401 - whatever a view returns
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the data as compact JSON, or nothing if it is None."""
        if data is None:
            return b""
        try:
            return orjson.dumps(data, _encode_other, OPTIONS)
        except orjson.JSONEncodeError:
            # orjson refuses integers of more than 64 bits, which JSON and Postgres's jsonb allow.
            rendered: bytes = super().render(data, accepted_media_type, renderer_context)
            return rendered
