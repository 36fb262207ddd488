"""Permission classes that need no tenant: who may call an action at all."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from pipedai.api.principal import Principal


class IsPublic(BasePermission):
    """Anyone, without credentials."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Always."""
        return True


class IsSignedIn(BasePermission):
    """Any principal of the substrates that the viewset accepts."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether there is a principal; the base viewset has answered 401 before, if not."""
        return isinstance(request.user, Principal)
