"""Encrypts (seals) and decrypts (opens) the headers of a connection (SPEC §8)."""

import json
from uuid import UUID

from workspaces.connections.models import HEADERS
from workspaces.encryption import keys


def seal_headers(environment_id: UUID, connection_id: UUID, headers: dict[str, str]) -> keys.Sealed:
    """Encrypts headers for this connection only, in the transaction that stores them."""
    return keys.seal(HEADERS, environment_id, connection_id, json.dumps(headers).encode())


def open_headers(
    environment_id: UUID, connection_id: UUID, box: bytes, key: keys.WrappedKey
) -> dict[str, str]:
    """Returns the decrypted headers. If that fails, it logs an alarm and raises crypto.CannotOpen."""
    return dict(json.loads(keys.unseal(HEADERS, environment_id, connection_id, box, key)))
