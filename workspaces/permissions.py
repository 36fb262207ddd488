"""Permission classes for the roles (SPEC §4). Each permits its role and those above it."""

from typing import ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from workspaces.access import TenantViewSet
from workspaces.roles import Role, check_includes


class HasRole(BasePermission):
    """Permits callers whose role, in the environment that the viewset found, is `role` or above it."""

    role: ClassVar[Role]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Returns True, or raises Forbidden with the role that is needed."""
        assert isinstance(view, TenantViewSet)
        check_includes(view.access.role, self.role)
        return True


class IsViewer(HasRole):
    """Any member."""

    role = Role.VIEWER


class IsOperator(HasRole):
    """Operators and above."""

    role = Role.OPERATOR


class IsAdmin(HasRole):
    """Admins and owners."""

    role = Role.ADMIN


class IsOwner(HasRole):
    """Owners."""

    role = Role.OWNER
