"""The endpoints of connections: list, make, read, change, delete and authorize them."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request

from accounts.sessions import CookieJWTAuthentication
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import NamedSerializer
from pipedai.api.throttling import Rate, Throttle, by_caller
from workspaces.access import IsAdmin, TenantViewSet
from workspaces.connections import authorizing
from workspaces.connections.serializers import (
    ConnectionBody,
    ConnectionFilters,
    ConnectionSerializer,
)
from workspaces.connections.services import CONNECTIONS
from workspaces.resource_views import ResourceViewSet


class ConnectionAuthorizationSerializer(NamedSerializer):
    """An authorization that a person has begun."""

    of = authorizing.Way


class ConnectionViewSet(ResourceViewSet):
    tag = "Connections"
    resource = CONNECTIONS
    body = ConnectionBody
    serializer = ConnectionSerializer
    filters = ConnectionFilters
    example = {
        "name": "Issue tracker",
        "mcpUrl": "https://mcp.example.com/mcp",
        "grant": "headers",
        "headers": {"Authorization": "Bearer a-secret-of-yours"},
    }
    change = {"headers": {"Authorization": "Bearer a-newer-secret"}}


class ConnectionAuthorizationViewSet(TenantViewSet):
    """What begins an authorization. Only a person in a browser can go on to the authorization server."""

    row = CONNECTIONS.row
    tag = "Connections"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"authorize": IsAdmin}
    # The rate is low because for each call a scheduler may spend ten seconds on requests to servers.
    throttles = {"authorize": (Throttle(Rate("authorize-connections", 20, 60), by_caller),)}
    environment_rates = {"authorize": Rate("authorize-connection", 10, 60)}

    @Operation(
        "POST /connections/{connectionId}/authorize",
        id="authorizeConnection",
        summary="Begin to authorize a connection",
        answers={200: ConnectionAuthorizationSerializer},
    )
    def authorize(self, request: Request, connection_id: UUID) -> Any:
        principal = principal_of(request)
        assert isinstance(principal, UserPrincipal)
        return authorizing.begin(
            connection_id=connection_id,
            session_id=principal.session_id,
            actor=actor_of(request),
        )
