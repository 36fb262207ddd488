"""Makes connections."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction

from pipedai.api.errors import Unavailable
from pipedai.outgoing import due
from pipedai.outgoing.oauth import Tokens
from pipedai.sql import Row, database_now
from testing.world.cast import TEST_ACTOR, Cast
from workspaces.connections import secrets
from workspaces.connections.authorizers import ToDiscover, ToExchange, carry_out
from workspaces.connections.models import Connection
from workspaces.connections.refreshing import Ailing, Healthy
from workspaces.connections.secrets import GrantSecrets, seal_grant, store_tokens
from workspaces.connections.services import CONNECTIONS

T = TypeVar("T")

CONNECTION_URL = "https://mcp.example/of-a-connection"
CONNECTION_HEADERS = {"Authorization": "Bearer planted-header-of-a-connection"}
ACCESS_TOKEN = "planted-access-token"  # noqa: S105
REFRESH_TOKEN = "planted-refresh-token"  # noqa: S105
CLIENT_SECRET = "planted-client-secret"  # noqa: S105


def claim_due(now: datetime | None = None) -> Row | None:
    """Claims one connection that is due, as a scheduler does."""
    for queue in (Healthy(), Ailing()):
        if claimed := due.claim_due(queue, room=1, busy={}, per_host=1, now=now):
            return claimed[0]
    return None


def work_off() -> int:
    """Asks what people who authorize connections wait for, as a scheduler does. Returns how many steps it took."""
    steps = 0
    for queue in (ToDiscover(), ToExchange()):
        while claimed := due.claim_due(queue, room=1, busy={}, per_host=1):
            carry_out(claimed[0], pause=lambda: None, keep=lambda record: record())
            steps += 1
    return steps


def answer_of(call: Callable[[], T]) -> T:
    """Returns the answer to a step of an authorization, for which a scheduler asks a server."""
    try:
        return call()
    except Unavailable:
        work_off()
        return call()


def add_connection(cast: Cast, **values: Any) -> UUID:
    """Adds a connection with planted headers to the cast's environment."""
    given = {
        "name": "Issue tracker",
        "mcp_url": CONNECTION_URL,
        "grant_type": "headers",
        "headers": CONNECTION_HEADERS,
        **values,
    }
    return CONNECTIONS.create(environment_id=cast.environment.id, values=given, actor=TEST_ACTOR)


def add_oauth_connection(
    cast: Cast,
    *,
    access_token: str = ACCESS_TOKEN,
    refresh_token: str | None = REFRESH_TOKEN,
    client_secret: str | None = CLIENT_SECRET,
    lives: int = 3600,
    since: datetime | None = None,
    **columns: Any,
) -> Connection:
    """Adds a connection with the grant `authorization_code`, which the cast's admin authorized at `since` (default:
    now, by the database's clock) with tokens for `lives` seconds. `columns` are then set on its row, such as other
    times. With the grant `client_credentials` a scheduler has asked for the token, and there is no refresh token.
    """
    grant = columns.setdefault("grant_type", "authorization_code")
    given = {
        "mcp_url": CONNECTION_URL,
        "name": "Issue tracker",
        "connected_by": cast.admin,
        **columns,
    }
    connection = Connection(environment=cast.environment, **given)
    connection.status, connection.refresh_at = Connection.Status.UNAUTHORIZED, None
    if grant == "client_credentials":
        refresh_token, connection.client_given, connection.connected_by = None, True, None
        connection.client_id, connection.refresh_at = "planted-client-id", database_now()
    with transaction.atomic():
        seal_grant(connection, GrantSecrets(client_secret=client_secret))
        connection.save(force_insert=True)
    give_tokens(connection.id, Tokens(access_token, refresh_token, lives), since=since, **columns)
    connection.refresh_from_db()
    return connection


def give_tokens(
    connection_id: UUID, tokens: Tokens, *, since: datetime | None = None, **columns: Any
) -> None:
    """Makes an OAuth connection `connected`, as if it had been authorized at `since` (default: now), and then sets the
    columns on its row.
    """
    connection = Connection.objects.get(id=connection_id)
    kept = secrets.grant_of(connection)
    connection.client_id = connection.client_id or "planted-client-id"
    connection.auth_method = "client_secret_basic" if kept.client_secret else "none"
    connection.resource, connection.issuer = connection.mcp_url, "https://issuer.example"
    connection.token_endpoint = "https://issuer.example/token"  # noqa: S105
    connection.revocation_endpoint = "https://issuer.example/revoke"
    with transaction.atomic():
        store_tokens(connection, tokens, kept=kept, since=since or database_now())
    if columns:
        Connection.objects.filter(id=connection_id).update(**columns)


def lose_connection(connection: Connection, status: str = "needs_login") -> None:
    """Takes the connection's token away, as it is when nobody has authorized it or its refresh token is refused."""
    refused = "The authorization server gave no token: the server refused it (invalid_grant)."
    error = refused if status == "needs_login" else None
    Connection.objects.filter(id=connection.id).update(
        status=status,
        error=error,
        headers=None,
        headers_key=None,
        access_expires_at=None,
        fresh_until=None,
        refresh_at=None,
    )
    connection.refresh_from_db()


def ago(connection: Connection, seconds: float) -> None:
    """Moves the times of the connection's token back, as if they had passed."""
    past = timedelta(seconds=seconds)
    times = ("connected_at", "access_expires_at", "fresh_until", "refresh_at")
    moved = {name: getattr(connection, name) - past for name in times}
    Connection.objects.filter(id=connection.id).update(**moved)
    connection.refresh_from_db()
