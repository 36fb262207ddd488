"""Permission classes for endpoints that belong to no workspace."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from pipedai.api.principal import Principal


class IsPublic(BasePermission):
    """Lets anyone call the action, without credentials."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Always true, so that anyone may call the action."""
        return True


class IsSignedIn(BasePermission):
    """Lets every authenticated principal call the action, whatever its role."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the request has a principal.

        A request without one never gets here, because the base viewset answers 401.
        """
        return isinstance(request.user, Principal)
