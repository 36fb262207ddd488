"""The viewsets of the workspaces app, whose endpoints are below /api/v1/."""

from pipedai.api.views import paths_of
from workspaces.connections.views import (
    ConnectionAuthorizationViewSet,
    ConnectionViewSet,
)
from workspaces.files.views import FileViewSet
from workspaces.views import (
    AcceptViewSet,
    ApiKeyViewSet,
    EnvironmentViewSet,
    InvitationViewSet,
    InvitedViewSet,
    MemberViewSet,
    WorkspaceEnvironmentViewSet,
    WorkspaceViewSet,
)

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
