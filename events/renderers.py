"""How an answer becomes bytes."""

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

# Times in UTC end in Z, as everywhere else in DRF.
OPTIONS = orjson.OPT_UTC_Z
_encode_other = JSONEncoder().default


class ORJSONRenderer(JSONRenderer):
    """DRF's JSON renderer, several times as fast."""

    def render(
        self,
        data: Any,  # noqa: ANN401 - whatever a view answers
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The data as compact JSON, and nothing for None."""
        if data is None:
            return b""
        try:
            return orjson.dumps(data, _encode_other, OPTIONS)
        except orjson.JSONEncodeError:
            # An integer of more than 64 bits, which Postgres's jsonb and JSON itself allow.
            rendered: bytes = super().render(data, accepted_media_type, renderer_context)
            return rendered
