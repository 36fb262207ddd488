"""The endpoint by which callers learn who they are. It is in this app because it accepts the tokens of workers too."""

from datetime import datetime
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Session
from accounts.sessions import CookieJWTAuthentication
from pipedai.api.principal import (
    KeyPrincipal,
    Principal,
    UserPrincipal,
    WorkerPrincipal,
    principal_of,
)
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import ApiViewSet, IsSignedIn
from workers.authentication import WorkerTokenAuthentication
from workers.models import Worker
from workspaces.access import ApiKeyAuthentication, HostKeyAuthentication
from workspaces.models import ApiKey
from workspaces.roles import KEY_ROLES

CALLER_KINDS = ("user", "api_key", "worker", "host")


class WhoAmIViewSet(ApiViewSet):
    """Tells the caller who they are and which environment they are in."""

    tag = "Accounts"
    authentication_classes = (
        CookieJWTAuthentication,
        ApiKeyAuthentication,
        HostKeyAuthentication,
        WorkerTokenAuthentication,
    )
    permissions = {"retrieve": IsSignedIn}

    @Operation(
        "GET /whoami",
        id="whoAmI",
        summary="Get who is calling",
        answers={
            200: answer(
                "Caller",
                "Who is calling, and where.",
                kind=serializers.ChoiceField(choices=CALLER_KINDS),
                id=serializers.UUIDField(),
                name=serializers.CharField(),
                role=serializers.ChoiceField(choices=KEY_ROLES, allow_null=True),
                environmentId=serializers.UUIDField(allow_null=True),
                workspaceId=serializers.UUIDField(allow_null=True),
                expiresAt=serializers.DateTimeField(allow_null=True),
            )
        },
    )
    def retrieve(self, request: Request) -> Response:
        principal = principal_of(request)
        kind, name, expires_at = _described(principal)
        return Response(
            {
                "kind": kind,
                "id": principal.id,
                "name": name,
                "role": principal.role if isinstance(principal, KeyPrincipal) else None,
                "environmentId": getattr(principal, "environment_id", None),
                "workspaceId": getattr(principal, "workspace_id", None),
                "expiresAt": expires_at,
            }
        )


def _described(principal: Principal) -> tuple[str, str, datetime | None]:
    """Returns a caller's kind, name and expiry of its credentials, in one query."""
    row: Any
    if isinstance(principal, UserPrincipal):
        row = Session.objects.values_list("user__email", "expires_at").get(id=principal.session_id)
        return ("user", *row)
    if isinstance(principal, WorkerPrincipal):
        return "worker", Worker.objects.values_list("label", flat=True).get(id=principal.id), None
    row = ApiKey.objects.values_list("name", "expires_at").get(id=principal.id)
    return ("api_key" if isinstance(principal, KeyPrincipal) else "host", *row)
