"""The base viewset: what is checked, in which order, before an action's body runs (SPEC §2)."""

import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from pipedai.api.authentication import RefuseTheRest
from pipedai.api.errors import Unauthenticated
from pipedai.api.origin import SAFE_METHODS, check_origin
from pipedai.api.parsers import check_encoding
from pipedai.api.permissions import IsPublic
from pipedai.api.principal import Principal, UserPrincipal
from pipedai.api.throttling import Throttle
from pipedai.api.write_rate import check_write


class ApiViewSet(ViewSet):
    """A resource's actions. Size and route are checked before it; it checks credentials, method, origin, throttle,
    visibility, role; the action then body and state.

    Each action names its permission class in `permissions`; one that does not keeps the class from being made.
    """

    permissions: ClassVar[Mapping[str, type[BasePermission]]] = {}
    # Actions that a browser may call to get a cookie: the origin is checked though there is no session yet.
    browser_entries: ClassVar[frozenset[str]] = frozenset()
    # How often a caller may do an action; checked before anything of the tenant's is looked at.
    throttles: ClassVar[Mapping[str, Sequence[Throttle]]] = {}
    # Actions that are no writes of a caller who may do only so many; those that are safe are none anyway.
    unmetered: ClassVar[frozenset[str]] = frozenset()
    # Query parameters that a list's cursor is bound to.
    filter_names: ClassVar[tuple[str, ...]] = ()
    http_method_names = ["get", "head", "post", "patch", "delete"]
    format_kwarg = None  # no format suffixes in our URLs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        undeclared = _actions_of(cls) - set(cls.permissions)
        if undeclared:
            raise TypeError(
                f"{cls.__name__} declares no permission for {sorted(undeclared)}: "
                "see An endpoint in CONTRIBUTING.md"
            )

    def get_authenticators(self) -> list[BaseAuthentication]:
        """The accepted substrates, then a sentence for the others. A public viewset reads no credentials at all."""
        if not self.authentication_classes:
            return []
        return [*super().get_authenticators(), RefuseTheRest()]

    def get_permissions(self) -> list[BasePermission]:
        """The one permission class of the action."""
        return [self.permissions[self.action]()]

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Sets `self.action` from the URL's own table, where DRF would add one for OPTIONS."""
        initialized = super().initialize_request(request, *args, **kwargs)
        # Else each look at it goes through DRF's __getattr__, a dozen times a request.
        # See docs/decisions/fast-paths.md.
        initialized.META = request.META
        self.action = self.action_map.get(str(request.method).lower())  # type: ignore[assignment]
        return initialized

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Everything that is checked before the action runs."""
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(
            request
        )
        principal: object = request.user
        if not isinstance(principal, Principal) and not self._is_public():
            raise Unauthenticated("Authentication is required.")
        if self.action is None:
            raise MethodNotAllowed(str(request.method))
        if request.method not in SAFE_METHODS and (
            isinstance(principal, UserPrincipal) or self.action in self.browser_entries
        ):
            check_origin(request)
        if isinstance(principal, Principal) and self.is_metered(str(request.method)):
            check_write(principal.id, now=time.monotonic())
        for throttle in self.throttles.get(self.action, ()):
            throttle.check(request)
        self.find_tenant(request, **kwargs)
        self.check_permissions(request)
        check_encoding(request)

    def is_metered(self, method: str) -> bool:
        """Whether the action counts as a write of whoever is authenticated."""
        return method not in SAFE_METHODS and self.action not in self.unmetered

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds what the URL names and the caller's role in it. Raises NotFound for what the caller can't see."""

    def _is_public(self) -> bool:
        named = {self.action} if self.action else set(self.action_map.values())
        return all(self.permissions[action] is IsPublic for action in named)


def _actions_of(cls: type) -> set[str]:
    """Public methods that a class itself defines with `request` as first argument: these can be wired to a URL."""
    return {
        name
        for name, function in vars(cls).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and list(inspect.signature(function).parameters)[1:2] == ["request"]
        and not hasattr(ViewSet, name)
        and not hasattr(ApiViewSet, name)
    }
