"""Encrypts (seals) and decrypts (opens) the secrets of a trigger: `mcpHeaders` and `webhookSecret` (SPEC §8)."""

import json
from uuid import UUID

from triggers.models.trigger import MCP_HEADERS, WEBHOOK_SECRET
from workspaces.encryption import keys


def seal_mcp_headers(
    environment_id: UUID, trigger_id: UUID, headers: dict[str, str]
) -> keys.Sealed:
    """Encrypts headers for this trigger only, in the transaction that stores them."""
    return keys.seal(MCP_HEADERS, environment_id, trigger_id, json.dumps(headers).encode())


def open_mcp_headers(
    environment_id: UUID, trigger_id: UUID, box: bytes, key: keys.WrappedKey
) -> dict[str, str]:
    """Returns the decrypted headers. If that fails, it logs an alarm and raises crypto.CannotOpen."""
    plaintext = keys.unseal(MCP_HEADERS, environment_id, trigger_id, box, key)
    return dict(json.loads(plaintext))


def seal_webhook_secret(environment_id: UUID, trigger_id: UUID, secret: str) -> keys.Sealed:
    """Encrypts the secret for this trigger only, in the transaction that stores it."""
    return keys.seal(WEBHOOK_SECRET, environment_id, trigger_id, secret.encode())


def open_webhook_secret(
    environment_id: UUID, trigger_id: UUID, box: bytes, key: keys.WrappedKey
) -> str:
    """Returns the decrypted signing secret. If that fails, it logs an alarm and raises crypto.CannotOpen."""
    return keys.unseal(WEBHOOK_SECRET, environment_id, trigger_id, box, key).decode()
