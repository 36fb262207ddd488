"""Seals and opens values under an environment's data key (SPEC §8). The only reader of wrapped keys."""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from pipedai import crypto
from pipedai.ids import new_id
from workspaces.models import DataKey


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext and the data key that opens it; the two columns of a sealed field."""

    box: bytes
    data_key_id: UUID


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it lies in its row, for a caller that read it in a join of its own."""

    id: UUID
    wrapped: bytes
    master_key_id: str


def create_data_key(environment_id: UUID) -> DataKey:
    """The first data key of a new environment, wrapped under the newest master key."""
    key_id = new_id()
    master = _masters()[0]
    wrapped = crypto.wrap(crypto.new_data_key(str(key_id)), master, str(environment_id))
    return DataKey.objects.create(
        id=key_id, environment_id=environment_id, wrapped=wrapped, master_key_id=master.id
    )


def seal(environment_id: UUID, table: str, field: str, row_id: UUID, plaintext: bytes) -> Sealed:
    """Encrypts a value for one field of one row under the environment's data key in use. One query."""
    row = DataKey.objects.get(environment_id=environment_id, retired_at__isnull=True)
    opened = _unwrap(environment_id, WrappedKey(row.id, bytes(row.wrapped), row.master_key_id))
    place = crypto.Place(str(environment_id), table, field, str(row_id))
    return Sealed(crypto.seal(opened, place, plaintext), row.id)


def unseal(
    environment_id: UUID, table: str, field: str, row_id: UUID, box: bytes, key: WrappedKey
) -> bytes:
    """Decrypts what `seal` made for this very place. No query. Raises crypto.CannotOpen."""
    opened = _unwrap(environment_id, key)
    place = crypto.Place(str(environment_id), table, field, str(row_id))
    return crypto.unseal(opened, place, box)


def _unwrap(environment_id: UUID, key: WrappedKey) -> crypto.DataKey:
    return crypto.unwrap(
        key.wrapped, str(key.id), key.master_key_id, str(environment_id), _masters()
    )


def _masters() -> tuple[crypto.MasterKey, ...]:
    return crypto.parse_master_keys(tuple(settings.MASTER_KEYS))
