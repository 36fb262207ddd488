"""Creates, changes and deletes connections, each with its audit event in the same transaction."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.renderers import counted
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, once
from pipedai.outgoing.posts import target_problem
from pipedai.redaction import REDACTED
from pipedai.sql import fetch_one
from workspaces.connections import secrets
from workspaces.connections.models import AuthorizedClient, Connection
from workspaces.connections.revoking import give_up_grant
from workspaces.connections.secrets import GrantSecrets
from workspaces.resources import Resource

_HOLD = """
SELECT mcp_url FROM connection
WHERE environment_id = %(environment_id)s AND id = %(connection_id)s FOR KEY SHARE
"""
# Records where the client secret is to be sent, and whether it belongs there. `uses` says that it is sent now.
_BIND = """
UPDATE connection SET
    secret_issuer = coalesce(secret_issuer, issuer, CASE WHEN %(uses)s THEN %(issuer)s END),
    next_issuer = nullif(%(issuer)s, coalesce(secret_issuer, issuer, %(issuer)s))
WHERE id = %(id)s AND (%(lease_id)s::uuid IS NULL OR lease_id = %(lease_id)s)
RETURNING next_issuer IS NULL AS is_its
"""
_Grant, _Status = Connection.Grant, Connection.Status
# The fields that only connections of these grants have: the names of the columns, and those of the API.
_OF_OAUTH = {"scopes": "scopes", "client_id": "clientId", "client_secret": "clientSecret"}
_OF_HEADERS = {"headers": "headers"}
# The values that are encrypted before they are stored.
_SEALED = frozenset({"headers", "client_secret"})


class Connections(Resource[Connection]):
    """Changes connections. The next hand-out of any run with the connection has its new headers. A new client secret or
    new scopes apply from the next request for tokens or the next authorization on.
    """

    noun = "connection"
    model = Connection
    # A trigger may refer to a connection, so a deletion waits for transactions that add such a reference.
    is_referred_to = True
    described_by = {"grant": "grant_type"}
    tells_all = True

    def apply(self, connection: Connection, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Sets the values. The audit row shows no secret."""
        is_new = connection._state.adding
        if is_new:
            _check_new(values)
        else:
            _check_fixed(connection, values)
        plain = {name: value for name, value in values.items() if name not in _SEALED}
        changes = super().apply(connection, plain, actor)
        if "headers" in values:
            changes["headers"] = REDACTED
            secrets.seal_headers(connection, values["headers"])
        if "client_secret" in values:
            changes["clientSecret"] = REDACTED
            _replace_secret(connection, values["client_secret"])
        if is_new:
            _begin(connection)
        elif changes.keys() & {"scopes", "clientSecret"}:
            _ask_anew(connection)
        return changes

    def release(self, connection: Connection) -> None:
        """Queues the revocation of the connection's grant."""
        if users := connection.triggers.count():
            raise Conflict(
                f"The connection still has {counted(users, 'trigger')}.",
                code=ErrorCode.HAS_CHILDREN,
            )
        give_up_grant(connection)

    def tell(self, action: str, connection: Connection, actor: Actor, **more: str) -> None:
        """Emits the event that a connection got, or lost, its grant."""
        metadata = {"name": connection.name, "grant": connection.grant_type, **more}
        self.emit(action, connection, actor, metadata)


CONNECTIONS = Connections()


def hold_connection(environment_id: UUID, connection_id: UUID) -> str | None:
    """Returns the URL of a connection, and keeps it from being deleted. Returns None if there is no such connection."""
    params = {"environment_id": environment_id, "connection_id": connection_id}
    row = once(("connection", environment_id, connection_id), lambda: fetch_one(_HOLD, params))
    return row["mcp_url"] if row else None


def bind_secret(
    connection_id: UUID, issuer: str, *, uses: bool, lease_id: UUID | None = None
) -> bool:
    """Returns whether the client secret that a user gave may be sent to this issuer. `uses` says that it will be sent,
    and ties the secret to the issuer. With `lease_id` it also returns False once another lease began.
    """
    params = {"id": connection_id, "issuer": issuer, "uses": uses, "lease_id": lease_id}
    row = fetch_one(_BIND, params)
    return row is not None and bool(row["is_its"])


def _check_new(values: dict[str, Any]) -> None:
    grant = values["grant_type"]
    wrong = _of_another_grant(grant, values)
    needed = {
        _Grant.HEADERS: _OF_HEADERS,
        _Grant.CLIENT_CREDENTIALS: {"client_id": "clientId", "client_secret": "clientSecret"},
        _Grant.AUTHORIZATION_CODE: {"client_id": "clientId"} if "client_secret" in values else {},
    }[grant]
    wrong |= {
        name: ["This field is required."]
        for column, name in needed.items()
        if values.get(column) is None
    }
    # The service itself sends requests to servers behind OAuth, so it must reach them. Servers with fixed headers may
    # be reachable for workers only.
    if grant != _Grant.HEADERS and (problem := target_problem(values["mcp_url"])):
        wrong["mcpUrl"] = [problem]
    if wrong:
        raise Invalid(wrong)


def _of_another_grant(grant: str, values: dict[str, Any]) -> dict[str, list[str]]:
    foreign = _OF_OAUTH if grant == _Grant.HEADERS else _OF_HEADERS
    return {
        name: [f"A connection with the grant {grant} has none."]
        for column, name in foreign.items()
        if values.get(column)
    }


def _check_fixed(connection: Connection, values: dict[str, Any]) -> None:
    fixed = {"mcpUrl": "mcp_url", "grant": "grant_type", "clientId": "client_id"}
    wrong = _of_another_grant(connection.grant_type, values)
    wrong |= {
        name: ["It can't be changed."]
        for name, column in fixed.items()
        if values.get(column, getattr(connection, column)) != getattr(connection, column)
    }
    if "client_secret" in values and not connection.client_given and not wrong:
        wrong["clientSecret"] = ["It belongs to a clientId, and nobody has given one."]
    if wrong:
        raise Invalid(wrong)


def _replace_secret(connection: Connection, client_secret: str) -> None:
    if connection.next_issuer is not None:
        # The form named this issuer, so the new secret is for it, and must not be sent to the previous one.
        _end_grant(connection)
        connection.secret_issuer, connection.next_issuer = connection.next_issuer, None
    try:
        held = secrets.grant_of(connection)
    except CannotOpen:
        # Secrets that can't be decrypted are lost, and must not keep a user from setting a new one.
        held = GrantSecrets()
    secrets.seal_grant(connection, replace(held, client_secret=client_secret))


def _end_grant(connection: Connection) -> None:
    """Ends the connection's grant, but keeps the client that a user gave."""
    give_up_grant(connection)
    for field in AuthorizedClient._meta.get_fields():
        if field.name != "client_id":
            setattr(connection, field.name, None)
    connection.headers = connection.headers_key = connection.grant_secrets = None
    connection.access_expires_at = connection.fresh_until = connection.refresh_at = None
    connection.end_claim()
    if connection.status != _Status.NEEDS_LOGIN:
        connection.status, connection.error, connection.failures = _Status.UNAUTHORIZED, None, 0


def _begin(connection: Connection) -> None:
    connection.client_given = connection.client_id is not None
    if connection.grant_type != _Grant.HEADERS:
        connection.status = _Status.UNAUTHORIZED
    if connection.grant_type == _Grant.CLIENT_CREDENTIALS:
        connection.refresh_at = Now()


def _ask_anew(connection: Connection) -> None:
    """Makes schedulers request a token with the present secret and scopes, if the grant needs no person for it."""
    if connection.grant_type != _Grant.CLIENT_CREDENTIALS:
        return
    connection.status = _Status.CONNECTED if connection.headers else _Status.UNAUTHORIZED
    connection.refresh_at = Now()
    connection.error, connection.failures = None, 0
    connection.end_claim()
