"""Stores the tokens that an authorization server gave (SPEC §24), for the callback and for refreshing."""

from dataclasses import replace
from datetime import datetime, timedelta

from workspaces.connections import secrets
from workspaces.connections.models import GRANT_SECRETS, Connection
from workspaces.connections.secrets import GrantSecrets
from workspaces.connections.tokens import LONGEST_LIFE, Tokens

# A run may be handed out only with a token that lives so long, or half its life if that is shorter (SPEC §24).
_LEAST_LIFE = timedelta(seconds=60)


def store_tokens(
    connection: Connection, tokens: Tokens, *, kept: GrantSecrets, since: datetime
) -> None:
    """Makes the connection `connected` with these tokens, and saves it. Call it in a transaction that has locked the
    connection's row. `kept` is what is secret of the grant so far: its refresh token stays unless another one came.
    `since` is when the tokens were asked for, by the database's clock, so that its life is never counted too long.
    """
    held = replace(kept, refresh_token=tokens.refresh_token or kept.refresh_token, verifier=None)
    can_refresh = held.refresh_token or connection.grant_type == Connection.Grant.CLIENT_CREDENTIALS
    # Who gives neither a life nor a refresh token, as GitHub does, means a token that lives until it is revoked.
    lives = tokens.lives if tokens.says_life or can_refresh else LONGEST_LIFE
    life = timedelta(seconds=lives)
    expires_at = since + life
    connection.access_expires_at = expires_at
    connection.fresh_until = expires_at - min(_LEAST_LIFE, life / 2)
    # When a third of the life is left. Without a refresh token only a person can help, who is told when runs wait.
    third = expires_at - life / 3 if can_refresh else connection.fresh_until
    connection.refresh_at = min(connection.fresh_until, third)
    connection.status = Connection.Status.CONNECTED
    connection.error, connection.failures = None, 0
    connection.end_claim()
    connection.connected_at = connection.connected_at or since
    place = (connection.environment_id, connection.id)
    headers = {"Authorization": f"Bearer {tokens.access_token}"}
    sealed = secrets.seal_headers(*place, headers)
    connection.headers, connection.headers_key_id = sealed.box, sealed.data_key_id
    sealed = secrets.seal_grant(GRANT_SECRETS, *place, held)
    connection.grant_secrets, connection.grant_secrets_key_id = sealed.box, sealed.data_key_id
    connection.save(force_update=True)
