"""Permission classes for the roles (SPEC §4): each lets its role and those above it pass."""

from typing import ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from workspaces.access import TenantViewSet
from workspaces.roles import Role, check_includes


class HasRole(BasePermission):
    """The caller's role in the tenant that the viewset found is at least `role`."""

    role: ClassVar[Role]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True, or raises Forbidden with the role that is needed: the caller can see the resource."""
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
