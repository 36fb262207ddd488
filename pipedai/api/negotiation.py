"""Chooses the renderer for a request, and answers 406 to a client that accepts no JSON (SPEC §2)."""

from collections.abc import Iterable

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class ContentNegotiation(DefaultContentNegotiation):
    """DRF's choice of a renderer, without parsing the Accept headers that nearly all clients send."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """Returns the renderer and the media type of the answer. Raises NotAcceptable if the client accepts no JSON."""
        # Most clients accept anything or name JSON, so a comparison of strings replaces the parsing of the header.
        # See docs/decisions/fast-paths.md.
        first = next(iter(renderers))
        if request.META.get("HTTP_ACCEPT", "*/*") in {"*/*", first.media_type}:
            return first, first.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(
            request, renderers, format_suffix
        )
        return chosen
