"""The endpoints of an environment's API keys."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.principal import actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from workspaces import api_keys
from workspaces.access import IsAdmin, IsViewer, TenantViewSet
from workspaces.models import ApiKey
from workspaces.serializers import ApiKeyBody, ApiKeySerializer, MintedApiKeySerializer


class ApiKeyViewSet(TenantViewSet):
    """The API keys of an environment. Only a person's session can call these endpoints, and no API key."""

    tag = "API keys"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"list": IsViewer, "create": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /environments/{environmentId}/api-keys",
        id="listApiKeys",
        summary="List API keys",
        items=ApiKeySerializer,
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = ApiKey.objects.filter(environment_id=environment_id).defer("token_digest")
        return self.page(request, rows, ApiKeySerializer)

    @Operation(
        "POST /environments/{environmentId}/api-keys",
        id="createApiKey",
        summary="Mint an API key",
        body=ApiKeyBody,
        example={"name": "deploy script", "prefix": "pwk", "role": "operator"},
        answers={201: MintedApiKeySerializer},
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        key, token = api_keys.mint_api_key(
            **read_body(ApiKeyBody, request),
            environment_id=environment_id,
            user_id=principal_of(request).id,
            actor=actor_of(request),
        )
        return Response({**ApiKeySerializer(key).data, "token": token}, status=201)

    @Operation(
        "DELETE /environments/{environmentId}/api-keys/{keyId}",
        id="revokeApiKey",
        summary="Revoke an API key",
        answers={204: None},
    )
    def destroy(self, request: Request, environment_id: UUID, key_id: UUID) -> Response:
        api_keys.revoke_api_key(
            environment_id=environment_id, key_id=key_id, actor=actor_of(request)
        )
        return Response(status=204)
