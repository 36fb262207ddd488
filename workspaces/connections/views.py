"""The endpoints of connections: list, make, read, change, delete and authorize them."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import CookieJWTAuthentication
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.principal import UserPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import read_body, sources_of
from pipedai.api.throttling import Rate, Throttle, by_caller
from workspaces.access import TenantViewSet
from workspaces.connections import authorizing, services
from workspaces.connections.models import Connection
from workspaces.connections.serializers import (
    ConnectionBody,
    ConnectionFilters,
    ConnectionSerializer,
)
from workspaces.connections.waiting import still_asking
from workspaces.permissions import IsAdmin, IsViewer

_COLUMNS = sorted(sources_of(ConnectionSerializer))
_ROW = ("connection_id", "SELECT id, environment_id FROM connection")
_CONNECTION = {
    "name": "Issue tracker",
    "mcpUrl": "https://mcp.example.com/mcp",
    "grant": "headers",
    "headers": {"Authorization": "Bearer a-secret-of-yours"},
}

_BEGUN = answer(
    "ConnectionAuthorization",
    "An authorization that a person has begun.",
    url=serializers.CharField(),
    issuer=serializers.CharField(),
)


class EnvironmentConnectionViewSet(TenantViewSet):
    tag = "Connections"
    permissions = {"list": IsViewer, "create": IsAdmin}
    filter_names = ConnectionFilters.names()

    @Operation(
        "GET /environments/{environmentId}/connections",
        id="listConnections",
        summary="List connections",
        items=ConnectionSerializer,
        filters=ConnectionFilters,
        says={200: "A list of connections."},
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Connection.objects.filter(environment_id=environment_id).values(*_COLUMNS)
        filters = ConnectionFilters.read(rows, request)
        paginator = KeysetPaginator()
        page = paginator.paginate_queryset(filters.qs, request, self)
        return paginator.get_paginated_response(ConnectionSerializer(page, many=True).data)

    @Operation(
        "POST /environments/{environmentId}/connections",
        id="createConnection",
        summary="Make a connection",
        body=ConnectionBody,
        example=_CONNECTION,
        answers={201: ConnectionSerializer},
        says={201: "With the connection."},
        errors={
            409: "`key_taken` or `ceiling_reached`.",
            503: "The secrets can't be sealed.",
        },
        audit=("connection.created",),
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        connection_id = services.create_connection(
            environment_id=environment_id,
            values=read_body(ConnectionBody, request),
            actor=actor_of(request),
        )
        return Response(_shown(connection_id), status=201)


class ConnectionViewSet(TenantViewSet):
    row = _ROW
    tag = "Connections"
    permissions = {"retrieve": IsViewer, "update": IsAdmin, "destroy": IsAdmin}

    @Operation(
        "GET /connections/{connectionId}",
        id="getConnection",
        summary="Get a connection",
        answers={200: ConnectionSerializer},
        says={200: "With the connection."},
    )
    def retrieve(self, request: Request, connection_id: UUID) -> Response:
        return Response(_shown(connection_id))

    @Operation(
        "PATCH /connections/{connectionId}",
        id="updateConnection",
        summary="Change a connection",
        body=ConnectionBody,
        partial=True,
        fields_as="POST /environments/{environmentId}/connections",
        example={"headers": {"Authorization": "Bearer a-newer-secret"}},
        answers={200: ConnectionSerializer},
        says={200: "With the connection."},
        errors={409: "`key_taken`.", 503: "The secrets can't be sealed."},
        audit=("connection.updated",),
    )
    def update(self, request: Request, connection_id: UUID) -> Response:
        services.update_connection(
            connection_id=connection_id,
            values=read_body(ConnectionBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(_shown(connection_id))

    @Operation(
        "DELETE /connections/{connectionId}",
        id="deleteConnection",
        summary="Delete a connection",
        answers={204: None},
        errors={409: "`has_children`: triggers use it."},
        audit=("connection.deleted",),
    )
    def destroy(self, request: Request, connection_id: UUID) -> Response:
        services.delete_connection(connection_id=connection_id, actor=actor_of(request))
        return Response(status=204)


class ConnectionAuthorizationViewSet(TenantViewSet):
    """What begins an authorization. Only a person in a browser can go on to the authorization server."""

    row = _ROW
    tag = "Connections"
    authentication_classes = (CookieJWTAuthentication,)
    permissions = {"authorize": IsAdmin}
    # For each call a scheduler may ask servers for ten seconds.
    throttles = {"authorize": (Throttle(Rate("authorize-connections", 20, 60), by_caller),)}
    environment_rates = {"authorize": Rate("authorize-connection", 10, 60)}

    @Operation(
        "POST /connections/{connectionId}/authorize",
        id="authorizeConnection",
        summary="Begin to authorize a connection",
        answers={200: _BEGUN},
        says={
            200: "With the URL to which the browser is to go, and the issuer whose server it is."
        },
        errors={
            409: "`wrong_grant`, `cannot_discover`, or `issuer_changed`.",
            503: "`still_asking`, or the secrets can't be sealed.",
        },
    )
    def authorize(self, request: Request, connection_id: UUID) -> Response:
        principal = principal_of(request)
        assert isinstance(principal, UserPrincipal)
        session_id = principal.session_id
        way = authorizing.begin(
            connection_id=connection_id, session_id=session_id, actor=actor_of(request)
        )
        if way is None:
            raise still_asking(connection_id=connection_id, session_id=session_id)
        return Response({"url": way.url, "issuer": way.issuer})


def _shown(connection_id: UUID) -> Any:
    row = Connection.objects.values(*_COLUMNS).get(id=connection_id)
    return ConnectionSerializer(row).data
