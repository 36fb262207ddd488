"""The URLs of the API as the resolver knows them."""

from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver


def api_routes() -> set[tuple[str, str]]:
    """(method, route) of everything below /api/v1/, as `("GET", "triggers/<uuid:trigger_id>")`; no HEAD, no OPTIONS."""
    return {
        (method.upper(), route.removeprefix("api/v1/"))
        for route, pattern in _patterns(get_resolver(), "")
        if route.startswith("api/v1/")
        for method in getattr(pattern.callback, "actions", {"any": None})
        if method != "head"
    }


def _patterns(resolver: URLResolver, prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, route)
        else:
            yield route, pattern
