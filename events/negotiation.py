"""Choose the format of a response."""

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from .defaults import DRF_DEFAULTS


class Negotiation(DefaultContentNegotiation):
    """DRF's content negotiation, with a short cut for the header that nearly every client sends."""

    settings: Any = DRF_DEFAULTS
    """DRF's own: a project may call the parameter `format` by another name."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """Return a renderer and the media type of its output.

        Raise NotAcceptable if no renderer meets the Accept header, and Http404 for an unknown
        `format`.
        """
        first, *_ = renderers
        headers = request.META
        accepted = headers.get("HTTP_ACCEPT", "*/*")
        if accepted in ("*/*", first.media_type) and not headers.get("QUERY_STRING"):
            return first, first.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(
            request, renderers, format_suffix
        )
        return chosen
