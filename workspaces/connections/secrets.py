"""Seals and opens the secrets of a connection and its grant, and stores the tokens that a server gave."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from pipedai.outgoing.oauth import LONGEST_LIFE, Tokens
from workspaces.connections.models import (
    AUTHORIZATION_CARRIED,
    AUTHORIZATION_SECRETS,
    GRANT_SECRETS,
    HEADERS,
    Authorization,
    Connection,
)
from workspaces.encryption import keys

# A run is handed out only with a token that lives at least this long, or half its lifetime if that is shorter.
_LEAST_LIFE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, repr=False)
class GrantSecrets:
    """The secrets of a grant besides its access token. Each is None if there is none."""

    # The secret of our client at the authorization server.
    client_secret: str | None = None
    refresh_token: str | None = None
    # The token and the URL with which the client can be removed, if the server registered it for us (RFC 7592).
    registration_token: str | None = None
    registration_url: str | None = None
    # The PKCE verifier of an authorization that is not finished.
    verifier: str | None = None

    def as_json(self) -> str:
        """Returns the JSON that is sealed. It leaves missing secrets out."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if value is not None}
        )


def store_tokens(
    connection: Connection, tokens: Tokens, *, kept: GrantSecrets, since: datetime
) -> None:
    """Makes the connection `connected` with these tokens, and saves it. Call it in a transaction that has locked the
    connection's row. `kept` has the grant's secrets so far: its refresh token stays unless the server sent another one.
    `since` is when the tokens were requested, by the database's clock, so that they never seem to live too long.
    """
    held = replace(kept, refresh_token=tokens.refresh_token or kept.refresh_token, verifier=None)
    can_refresh = held.refresh_token or connection.grant_type == Connection.Grant.CLIENT_CREDENTIALS
    # A server that sends neither a lifetime nor a refresh token, such as GitHub, means a token that never expires.
    lives = tokens.lives if tokens.says_life or can_refresh else LONGEST_LIFE
    life = timedelta(seconds=lives)
    expires_at = since + life
    connection.access_expires_at = expires_at
    connection.fresh_until = expires_at - min(_LEAST_LIFE, life / 2)
    # The refresh is due when a third of the lifetime is left. Without a refresh token only a person can help.
    third = expires_at - life / 3 if can_refresh else connection.fresh_until
    connection.refresh_at = min(connection.fresh_until, third)
    connection.status = Connection.Status.CONNECTED
    connection.error, connection.failures = None, 0
    connection.end_claim()
    connection.connected_at = connection.connected_at or since
    seal_headers(connection, {"Authorization": f"Bearer {tokens.access_token}"})
    seal_grant(connection, held)
    connection.save(force_update=True)


def seal_headers(connection: Connection, headers: dict[str, str]) -> None:
    """Encrypts headers for this connection only, in the transaction that saves it."""
    keys.seal_into(HEADERS, connection, json.dumps(headers).encode())


def seal_grant(connection: Connection, held: GrantSecrets) -> None:
    """Encrypts the secrets of a grant for this connection only, in the transaction that saves it."""
    keys.seal_into(GRANT_SECRETS, connection, held.as_json().encode())


def seal_authorization(begun: Authorization, held: GrantSecrets) -> None:
    """Encrypts the secrets of an authorization for it only, in the transaction that saves it."""
    keys.seal_into(AUTHORIZATION_SECRETS, begun, held.as_json().encode())


def carry(begun: Authorization, carried: str) -> None:
    """Encrypts the value that an authorization needs in its next step, in the transaction that saves it."""
    keys.seal_into(AUTHORIZATION_CARRIED, begun, carried.encode())


# The functions below raise crypto.CannotOpen, and log an alarm, if a value can't be decrypted.


def grant_of(connection: Connection) -> GrantSecrets:
    opened = keys.unseal_from(GRANT_SECRETS, connection)
    return GrantSecrets(**json.loads(opened)) if opened else GrantSecrets()


def authorization_of(begun: Authorization) -> GrantSecrets:
    """Returns the secrets of an authorization that is not finished."""
    return GrantSecrets(**json.loads(keys.unseal_from(AUTHORIZATION_SECRETS, begun) or "{}"))


def carried_of(begun: Authorization) -> str:
    return (keys.unseal_from(AUTHORIZATION_CARRIED, begun) or b"").decode()


def access_token_of(connection: Connection) -> str | None:
    """Returns the access token, or None if the connection has none."""
    opened = keys.unseal_from(HEADERS, connection)
    return json.loads(opened)["Authorization"].removeprefix("Bearer ") if opened else None
