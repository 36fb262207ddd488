"""Permission classes for the roles (SPEC §4). Each permits callers with its role or a higher one."""

from typing import ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from workspaces.access import TenantViewSet
from workspaces.roles import Role, check_includes


class HasRole(BasePermission):
    role: ClassVar[Role]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Returns True if the caller's role is high enough. Otherwise raises Forbidden with the role that is needed."""
        assert isinstance(view, TenantViewSet)
        check_includes(view.access.role, self.role)
        return True


class IsViewer(HasRole):
    role = Role.VIEWER


class IsOperator(HasRole):
    role = Role.OPERATOR


class IsAdmin(HasRole):
    role = Role.ADMIN


class IsOwner(HasRole):
    role = Role.OWNER
