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


class MintedApiKeySerializer(ApiKeySerializer):
    """A new key with its token, which is shown this once."""

    token = serializers.CharField()


describe(
    WorkspaceViewSet,
    "Workspaces",
    list=Operation(
        id="listWorkspaces",
        summary="List workspaces",
        items=WorkspaceSerializer,
        says={200: "A list of workspaces."},
        errors={400: "A bad `limit` or `cursor`."},
    ),
    create=Operation(
        id="createWorkspace",
        summary="Make a workspace",
        body=NameBody,
        example={"name": "Acme"},
        answers={201: WorkspaceSerializer},
        says={201: "With the workspace."},
        errors={409: "A ceiling."},
        audit=("workspace.created",),
    ),
)
describe(
    WorkspaceEnvironmentViewSet,
    "Environments",
    list=Operation(
        id="listEnvironments",
        summary="List environments",
        items=EnvironmentSerializer,
        says={200: "A list of environments."},
        errors={400: "A bad `limit` or `cursor`.", 404: "No such workspace, or not visible."},
    ),
    create=Operation(
        id="createEnvironment",
        summary="Make an environment",
        body=NameBody,
        example={"name": "production"},
        answers={201: EnvironmentSerializer},
        says={201: "With the environment."},
        errors={
            403: "The caller sees the workspace but may not create in it, or foreign origin.",
            409: "The name is taken, or a ceiling.",
        },
        audit=("environment.created",),
    ),
)
describe(
    EnvironmentViewSet,
    "Environments",
    retrieve=Operation(
        id="getEnvironment",
        summary="Get an environment",
        answers={200: EnvironmentSerializer},
        says={200: "With the environment and the caller's `role` (a key's own)."},
    ),
    update=Operation(
        id="renameEnvironment",
        summary="Rename an environment",
        body=NameBody,
        example={"name": "staging"},
        answers={200: EnvironmentSerializer},
        says={200: "With the environment."},
        errors={409: "The name is taken."},
        audit=("environment.updated",),
    ),
    destroy=Operation(
        id="deleteEnvironment",
        summary="Delete an environment",
        answers={204: None},
        errors={
            409: (
                "While it has triggers, workers or unfinished runs; the sentence says which and how "
                "many."
            ),
        },
        audit=("environment.deleted",),
    ),
)
describe(
    MemberViewSet,
    "Members",
    list=Operation(
        id="listMembers",
        summary="List members",
        items=MemberSerializer,
        says={200: "A list of members."},
        errors={400: "A bad `limit` or `cursor`."},
    ),
    create=Operation(
        id="addMember",
        summary="Add a member",
        body=MemberBody,
        example={"email": "grace@example.com", "role": "operator"},
        answers={201: MemberSerializer},
        says={201: "With the member."},
        errors={
            404: "No such environment, or no such active user.",
            409: "A member already, or a ceiling.",
        },
        audit=("member.added",),
    ),
    update=Operation(
        id="changeMemberRole",
        summary="Change a member's role",
        body=RoleBody,
        example={"role": "admin"},
        answers={200: MemberSerializer},
        says={200: "With the member; the same role changes nothing."},
        errors={409: "It would leave no owner."},
        audit=("member.role-changed",),
    ),
    destroy=Operation(
        id="removeMember",
        summary="Remove a member",
        answers={204: None},
        errors={403: "Role or origin.", 409: "It would leave no owner."},
        audit=("member.removed",),
    ),
)
describe(
    ApiKeyViewSet,
    "API keys",
    list=Operation(
        id="listApiKeys",
        summary="List API keys",
        items=ApiKeySerializer,
        says={200: "A list of keys, revoked, expired and consumed ones too."},
    ),
    create=Operation(
        id="createApiKey",
        summary="Mint an API key",
        body=ApiKeyBody,
        example={"name": "deploy script", "prefix": "pwk", "role": "operator"},
        answers={201: MintedApiKeySerializer},
        says={201: "With the key and, this once, its `token`."},
        errors={409: "A ceiling."},
        audit=("api-key.created",),
    ),
    destroy=Operation(
        id="revokeApiKey",
        summary="Revoke an API key",
        answers={204: None},
        says={204: "Also when it is revoked already."},
        audit=("api-key.revoked",),
    ),
)
