"""Routes of the workspaces app, below /api/v1/."""

from django.urls import path

from workspaces.api_key_views import ApiKeyViewSet
from workspaces.invitation_views import AcceptViewSet, InvitationViewSet
from workspaces.member_views import MemberViewSet
from workspaces.views import EnvironmentViewSet, WorkspaceEnvironmentViewSet, WorkspaceViewSet

urlpatterns = [
    path("workspaces", WorkspaceViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "workspaces/<uuid:workspace_id>/environments",
        WorkspaceEnvironmentViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "environments/<uuid:environment_id>",
        EnvironmentViewSet.as_view({"get": "retrieve", "patch": "update", "delete": "destroy"}),
    ),
    path(
        "environments/<uuid:environment_id>/members",
        MemberViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "environments/<uuid:environment_id>/members/<uuid:user_id>",
        MemberViewSet.as_view({"patch": "update", "delete": "destroy"}),
    ),
    path(
        "environments/<uuid:environment_id>/invitations",
        InvitationViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "environments/<uuid:environment_id>/invitations/<uuid:invitation_id>",
        InvitationViewSet.as_view({"delete": "destroy"}),
    ),
    path("invitations/accept", AcceptViewSet.as_view({"post": "accept"})),
    path(
        "environments/<uuid:environment_id>/api-keys",
        ApiKeyViewSet.as_view({"get": "list", "post": "create"}),
    ),
    path(
        "environments/<uuid:environment_id>/api-keys/<uuid:key_id>",
        ApiKeyViewSet.as_view({"delete": "destroy"}),
    ),
]
