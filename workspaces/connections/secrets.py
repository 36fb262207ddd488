"""Encrypts (seals) and decrypts (opens) what is secret of a connection and its grant (SPEC §8)."""

import json
from dataclasses import asdict, dataclass
from uuid import UUID

from workspaces.connections.models import (
    AUTHORIZATION_CARRIED,
    AUTHORIZATION_SECRETS,
    GRANT_SECRETS,
    HEADERS,
    Authorization,
    Connection,
)
from workspaces.encryption import keys
from workspaces.encryption.sealed_fields import SealedField
from workspaces.models import DataKey


@dataclass(frozen=True, slots=True, repr=False)
class GrantSecrets:
    """The secrets of a grant besides its access token. Each is None if there is none."""

    # The secret of our client at the authorization server.
    client_secret: str | None = None
    refresh_token: str | None = None
    # What removes the client from the server, if the server has registered it for us (RFC 7592).
    registration_token: str | None = None
    registration_url: str | None = None
    # The PKCE verifier of an authorization that is not finished.
    verifier: str | None = None


def seal_headers(environment_id: UUID, connection_id: UUID, headers: dict[str, str]) -> keys.Sealed:
    """Encrypts headers for this connection only, in the transaction that stores them."""
    return keys.seal(HEADERS, environment_id, connection_id, json.dumps(headers).encode())


def open_headers(
    environment_id: UUID, connection_id: UUID, box: bytes, key: keys.WrappedKey
) -> dict[str, str]:
    """Returns the decrypted headers. If that fails, it logs an alarm and raises crypto.CannotOpen."""
    return dict(json.loads(keys.unseal(HEADERS, environment_id, connection_id, box, key)))


def seal_grant(
    field: SealedField, environment_id: UUID, row_id: UUID, secrets: GrantSecrets
) -> keys.Sealed:
    """Encrypts the secrets for this row only, a connection's or an authorization's, in the transaction that stores
    them.
    """
    there = {name: value for name, value in asdict(secrets).items() if value is not None}
    return keys.seal(field, environment_id, row_id, json.dumps(there).encode())


def open_grant(
    field: SealedField, environment_id: UUID, row_id: UUID, box: bytes, key: keys.WrappedKey
) -> GrantSecrets:
    """Returns the decrypted secrets. If that fails, it logs an alarm and raises crypto.CannotOpen."""
    return GrantSecrets(**json.loads(keys.unseal(field, environment_id, row_id, box, key)))


def grant_of(connection: Connection) -> GrantSecrets:
    """Returns what is secret of the connection's grant. Raises crypto.CannotOpen, after an alarm."""
    if connection.grant_secrets is None:
        return GrantSecrets()
    place = (connection.environment_id, connection.id)
    return open_grant(
        GRANT_SECRETS, *place, bytes(connection.grant_secrets), _key(connection.grant_secrets_key)
    )


def authorization_of(begun: Authorization) -> GrantSecrets:
    """Returns what is secret of an authorization that is not finished. Raises crypto.CannotOpen, after an alarm."""
    place = (begun.environment_id, begun.id)
    return open_grant(AUTHORIZATION_SECRETS, *place, bytes(begun.secrets), _key(begun.secrets_key))


def carry(begun: Authorization, carried: str) -> None:
    """Encrypts what an authorization carries to its next step, in the transaction that saves it."""
    place = (begun.environment_id, begun.id)
    sealed = keys.seal(AUTHORIZATION_CARRIED, *place, carried.encode())
    begun.carried, begun.carried_key_id = sealed.box, sealed.data_key_id


def open_carried(
    environment_id: UUID, authorization_id: UUID, box: bytes, key: keys.WrappedKey
) -> str:
    """Returns what an authorization carries. Raises crypto.CannotOpen, after an alarm."""
    place = (environment_id, authorization_id)
    return keys.unseal(AUTHORIZATION_CARRIED, *place, box, key).decode()


def carried_of(begun: Authorization) -> str:
    box, key = begun.carried, begun.carried_key
    assert box is not None
    assert key is not None
    return open_carried(begun.environment_id, begun.id, bytes(box), _key(key))


def access_token_of(connection: Connection) -> str | None:
    """Returns the access token, or None if the connection has none. Raises crypto.CannotOpen, after an alarm."""
    if connection.headers is None:
        return None
    place = (connection.environment_id, connection.id)
    headers = open_headers(*place, bytes(connection.headers), _key(connection.headers_key))
    return headers["Authorization"].removeprefix("Bearer ")


def _key(key: DataKey) -> keys.WrappedKey:
    return keys.WrappedKey(key.id, bytes(key.wrapped), key.master_key_id)
