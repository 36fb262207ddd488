"""The viewsets of the workspaces app, whose endpoints are below /api/v1/."""

from pipedai.api.views import paths_of
from workspaces.api_key_views import ApiKeyViewSet
from workspaces.connections.views import (
    ConnectionAuthorizationViewSet,
    ConnectionViewSet,
)
from workspaces.files.views import FileViewSet
from workspaces.invitation_views import AcceptViewSet, InvitationViewSet, InvitedViewSet
from workspaces.member_views import MemberViewSet
from workspaces.views import EnvironmentViewSet, WorkspaceEnvironmentViewSet, WorkspaceViewSet

urlpatterns = paths_of(
    WorkspaceViewSet,
    WorkspaceEnvironmentViewSet,
    EnvironmentViewSet,
    MemberViewSet,
    InvitationViewSet,
    InvitedViewSet,
    AcceptViewSet,
    ApiKeyViewSet,
    ConnectionViewSet,
    ConnectionAuthorizationViewSet,
    FileViewSet,
)
