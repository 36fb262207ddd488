"""Lists the URLs of the API as Django's resolver knows them, and what their viewsets declare."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission

from pipedai.api.schema.operation import Operation, operation_of


def api_paths() -> list[str]:
    """Returns the route of every URL under /api/v1/, such as `triggers/<uuid:trigger_id>`."""
    routes = [route for route, _ in _patterns(get_resolver(), "") if route.startswith("api/v1/")]
    return [route.removeprefix("api/v1/") for route in routes]


def api_routes() -> set[tuple[str, str]]:
    """Returns (method, route) of every URL under /api/v1/, such as `("GET", "triggers/<uuid:trigger_id>")`.

    HEAD and OPTIONS are left out.
    """
    return {
        (method.upper(), route.removeprefix("api/v1/"))
        for route, pattern in _patterns(get_resolver(), "")
        if route.startswith("api/v1/")
        for method in getattr(pattern.callback, "actions", {"any": None})
        if method != "head"
    }


def permission_of(method: str, route: str) -> type[BasePermission]:
    """Returns the permission class that the viewset demands for a route of `api_routes`."""
    viewset, action = _action(method, route)
    permission: type[BasePermission] = viewset.permissions[action]
    return permission


def authenticates(method: str, route: str) -> Sequence[type[BaseAuthentication]]:
    """Returns the authentication classes that the viewset accepts for a route of `api_routes`."""
    viewset, _ = _action(method, route)
    accepted: Sequence[type[BaseAuthentication]] = viewset.authentication_classes
    return accepted


def operation_of_action(method: str, route: str) -> Operation:
    """Returns the `@Operation` of the action behind a route of `api_routes`."""
    return operation_of(*_action(method, route))


def is_throttled(method: str, route: str) -> bool:
    """Whether the route has a rate of its own."""
    viewset, action = _action(method, route)
    return action in viewset.throttles or action in getattr(viewset, "environment_rates", {})


def is_metered(method: str, route: str) -> bool:
    """Whether a call of the route counts as one of the caller's writes."""
    viewset, action = _action(method, route)
    view = viewset()
    view.action = action
    return bool(view.get_authenticators()) and bool(view.is_metered(method))


def reads_replica(method: str, route: str) -> bool:
    """Whether a replica may answer the list."""
    viewset, action = _action(method, route)
    return hasattr(getattr(viewset, action), "reads_replica")


def _action(method: str, route: str) -> tuple[Any, str]:
    for known, pattern in _patterns(get_resolver(), ""):
        actions = getattr(pattern.callback, "actions", {})
        if known == f"api/v1/{route}" and method.lower() in actions:
            return getattr(pattern.callback, "cls"), actions[method.lower()]  # noqa: B009 - DRF sets it
    raise LookupError(
        f"No viewset of a module in pipedai/urls.py has {method} {route}: see An endpoint in CONTRIBUTING.md."
    )


def _patterns(resolver: URLResolver, prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, route)
        else:
            yield route, pattern
