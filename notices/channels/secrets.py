"""Encrypts (seals) and decrypts (opens) the URL and the secret of a channel (SPEC §8, §14)."""

from uuid import UUID

from workspaces.encryption import keys
from workspaces.encryption.sealed_fields import SealedField

URL = SealedField("channel", "url", "url_key_id")
SECRET = SealedField("channel", "secret", "secret_key_id")


def seal(field: SealedField, environment_id: UUID, channel_id: UUID, text: str) -> keys.Sealed:
    """Returns the text, encrypted so that it can be decrypted for this field of this channel only. Call it in the
    transaction that stores the result.
    """
    return keys.seal(field, environment_id, channel_id, text.encode())


def unseal(
    field: SealedField, environment_id: UUID, channel_id: UUID, box: bytes, key: keys.WrappedKey
) -> str:
    """Returns the decrypted text. If it can't be decrypted, the function logs an alarm and raises crypto.CannotOpen."""
    return keys.unseal(field, environment_id, channel_id, bytes(box), key).decode()
