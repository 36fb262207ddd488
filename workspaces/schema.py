"""Describes the workspace, environment, member and key endpoints for the OpenAPI schema."""

from rest_framework import serializers

from pipedai.api.schema.operation import Operation, describe
from workspaces.serializers import (
    ApiKeyBody,
    ApiKeySerializer,
    EnvironmentSerializer,
    MemberBody,
    MemberSerializer,
    NameBody,
    RoleBody,
    WorkspaceSerializer,
)
from workspaces.views import (
    ApiKeyViewSet,
    EnvironmentViewSet,
    MemberViewSet,
    WorkspaceEnvironmentViewSet,
    WorkspaceViewSet,
)

_CONFLICT = frozenset({409})


class MintedApiKeySerializer(ApiKeySerializer):
    """A new key with its token, which is shown this once."""

    token = serializers.CharField()


describe(
    WorkspaceViewSet,
    "Workspaces",
    list=Operation(id="listWorkspaces", summary="List workspaces", items=WorkspaceSerializer),
    create=Operation(
        id="createWorkspace",
        summary="Make a workspace",
        body=NameBody,
        example={"name": "Acme"},
        answers={201: WorkspaceSerializer},
        errors=_CONFLICT,
        audit=("workspace.created",),
    ),
)
describe(
    WorkspaceEnvironmentViewSet,
    "Environments",
    list=Operation(id="listEnvironments", summary="List environments", items=EnvironmentSerializer),
    create=Operation(
        id="createEnvironment",
        summary="Make an environment",
        body=NameBody,
        example={"name": "production"},
        answers={201: EnvironmentSerializer},
        errors=_CONFLICT,
        audit=("environment.created",),
    ),
)
describe(
    EnvironmentViewSet,
    "Environments",
    retrieve=Operation(
        id="getEnvironment", summary="Get an environment", answers={200: EnvironmentSerializer}
    ),
    update=Operation(
        id="renameEnvironment",
        summary="Rename an environment",
        body=NameBody,
        example={"name": "staging"},
        answers={200: EnvironmentSerializer},
        errors=_CONFLICT,
        audit=("environment.updated",),
    ),
    destroy=Operation(
        id="deleteEnvironment",
        summary="Delete an environment",
        answers={204: None},
        errors=_CONFLICT,
        audit=("environment.deleted",),
    ),
)
describe(
    MemberViewSet,
    "Members",
    list=Operation(id="listMembers", summary="List members", items=MemberSerializer),
    create=Operation(
        id="addMember",
        summary="Add a member",
        body=MemberBody,
        example={"email": "grace@example.com", "role": "operator"},
        answers={201: MemberSerializer},
        errors=_CONFLICT,
        audit=("member.added",),
    ),
    update=Operation(
        id="changeMemberRole",
        summary="Change a member's role",
        body=RoleBody,
        example={"role": "admin"},
        answers={200: MemberSerializer},
        errors=_CONFLICT,
        audit=("member.role-changed",),
    ),
    destroy=Operation(
        id="removeMember",
        summary="Remove a member",
        answers={204: None},
        errors=_CONFLICT,
        audit=("member.removed",),
    ),
)
describe(
    ApiKeyViewSet,
    "API keys",
    list=Operation(id="listApiKeys", summary="List API keys", items=ApiKeySerializer),
    create=Operation(
        id="createApiKey",
        summary="Mint an API key",
        body=ApiKeyBody,
        example={"name": "deploy script", "prefix": "pwk", "role": "operator"},
        answers={201: MintedApiKeySerializer},
        errors=_CONFLICT,
        audit=("api-key.created",),
    ),
    destroy=Operation(
        id="revokeApiKey",
        summary="Revoke an API key",
        answers={204: None},
        audit=("api-key.revoked",),
    ),
)
