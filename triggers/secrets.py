"""Seals and opens a trigger's secrets: `mcpHeaders` and `webhookSecret` (SPEC §8)."""

import json
from uuid import UUID

from workspaces import keys

_TABLE = "trigger"


def seal_mcp_headers(
    environment_id: UUID, trigger_id: UUID, headers: dict[str, str]
) -> keys.Sealed:
    """The headers encrypted for this trigger alone."""
    plaintext = json.dumps(headers).encode()
    return keys.seal(environment_id, _TABLE, "mcp_headers", trigger_id, plaintext)


def open_mcp_headers(
    environment_id: UUID, trigger_id: UUID, box: bytes, key: keys.WrappedKey
) -> dict[str, str]:
    """The headers in plaintext. Raises crypto.CannotOpen."""
    plaintext = keys.unseal(environment_id, _TABLE, "mcp_headers", trigger_id, box, key)
    return dict(json.loads(plaintext))


def seal_webhook_secret(environment_id: UUID, trigger_id: UUID, secret: str) -> keys.Sealed:
    """The webhook's signing secret encrypted for this trigger alone."""
    return keys.seal(environment_id, _TABLE, "webhook_secret", trigger_id, secret.encode())


def open_webhook_secret(
    environment_id: UUID, trigger_id: UUID, box: bytes, key: keys.WrappedKey
) -> str:
    """The webhook's signing secret in plaintext. Raises crypto.CannotOpen."""
    return keys.unseal(environment_id, _TABLE, "webhook_secret", trigger_id, box, key).decode()
