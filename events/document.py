"""The OpenAPI document that is served: `openapi.yaml`, which `make openapi` writes.

It is a file of the package, so that it is the same in every project. drf-spectacular's result would
depend on the project's settings and other packages.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import yaml
from rest_framework.renderers import BaseRenderer

FILE = Path(__file__).with_name("openapi.yaml")
SERVER = "/api/v3"
"""The server that the file names. The served document names the URL where the API is mounted."""


class YAMLRenderer(BaseRenderer):
    """Renders the document for the server with the given URL."""

    media_type = "application/vnd.oai.openapi"
    format = "yaml"

    def render(
        self,
        data: Any,  # noqa: ANN401 - as in DRF
        accepted_media_type: str | None = None,
        renderer_context: Any = None,  # noqa: ANN401 - as in DRF
    ) -> bytes:
        """Return the document."""
        return _as_yaml(data)


class PlainYAMLRenderer(YAMLRenderer):
    media_type = "application/yaml"


class JSONRenderer(YAMLRenderer):
    media_type = "application/vnd.oai.openapi+json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,  # noqa: ANN401 - as in DRF
        accepted_media_type: str | None = None,
        renderer_context: Any = None,  # noqa: ANN401 - as in DRF
    ) -> bytes:
        """Return the document as JSON."""
        return _as_json(data)


class PlainJSONRenderer(JSONRenderer):
    media_type = "application/json"


@lru_cache(maxsize=8)
def _as_yaml(server: str) -> bytes:
    url = orjson.dumps(server).decode()  # a string of JSON is one of YAML
    return FILE.read_text().replace(f"\n- url: {SERVER}\n", f"\n- url: {url}\n").encode()


@lru_cache(maxsize=8)
def _as_json(server: str) -> bytes:
    return orjson.dumps(yaml.safe_load(_as_yaml(server)), option=orjson.OPT_INDENT_2)
