"""Envelope encryption: master keys encrypt data keys, and data keys encrypt values.

secretbox has no associated data, so BLAKE2b derives each value's key from the data key and the value's place. A
ciphertext that was moved to another row, field or environment can't be decrypted.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import nacl.encoding
import nacl.exceptions
import nacl.hash
import nacl.secret
import nacl.utils
from django.conf import settings

KEY_BYTES = nacl.secret.SecretBox.KEY_SIZE
_VERSION = b"\x01"
_PERSON_DATA = b"pipedai-data"
_PERSON_WRAP = b"pipedai-wrap"


class CannotOpen(Exception):  # noqa: N818
    """The error for a value that was changed, moved or cut, or whose key is missing. The message says nothing about the
    value. A subclass means that the data key is at fault, and not the value.
    """


class UnknownMasterKey(CannotOpen):
    """The data key is wrapped by a master key that is not among this process's `MASTER_KEYS`."""


class BrokenDataKey(CannotOpen):
    """The wrapped data key was changed, moved or cut, or the id of its master key now names another key."""


class NoDataKey(CannotOpen):
    """The environment has no data key with which a value could be sealed."""


class Place(NamedTuple):
    """Where a sealed value is stored. Its key is derived from these four fields, so a moved value can't be opened."""

    environment_id: str
    table: str
    field: str
    row_id: str


@dataclass(frozen=True, slots=True)
class MasterKey:
    id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataKey:
    id: str
    key: bytes = field(repr=False)


@lru_cache(maxsize=8)
def parse_master_keys(entries: tuple[str, ...]) -> tuple[MasterKey, ...]:
    """Returns the keys of a `MASTER_KEYS` setting, newest first. Raises ValueError with a sentence for the operator."""
    keys = []
    for entry in entries:
        key_id, separator, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not separator or not key_id or len(key) != KEY_BYTES:
            raise ValueError("Each of MASTER_KEYS must be <id>:<base64 of 32 random bytes>.")
        keys.append(MasterKey(key_id, key))
    if not keys or len({key.id for key in keys}) != len(keys):
        raise ValueError("MASTER_KEYS must hold at least one key, and no id twice.")
    return tuple(keys)


def masters() -> tuple[MasterKey, ...]:
    """Returns this process's master keys, newest first."""
    return parse_master_keys(tuple(settings.MASTER_KEYS))


def new_data_key(data_key_id: str) -> DataKey:
    return DataKey(data_key_id, nacl.utils.random(KEY_BYTES))


def wrap(data_key: DataKey, master: MasterKey, environment_id: str) -> bytes:
    """Returns the data key encrypted by a master key, and bound to its environment and id."""
    key = _derive(master.key, _PERSON_WRAP, (environment_id, data_key.id))
    return _box(key, data_key.key)


def unwrap(
    wrapped: bytes,
    data_key_id: str,
    master_key_id: str,
    environment_id: str,
    masters: Sequence[MasterKey],
) -> DataKey:
    """Returns the data key. Raises UnknownMasterKey, or BrokenDataKey if `wrap` did not return these bytes."""
    for master in masters:
        if master.id == master_key_id:
            key = _derive(master.key, _PERSON_WRAP, (environment_id, data_key_id))
            try:
                return DataKey(data_key_id, _unbox(key, wrapped))
            except CannotOpen:
                raise BrokenDataKey from None
    raise UnknownMasterKey


def seal(data_key: DataKey, place: Place, plaintext: bytes) -> bytes:
    """Returns a version byte, a random nonce and the ciphertext, for the place where it will be stored."""
    return _box(_derive(data_key.key, _PERSON_DATA, (data_key.id, *place)), plaintext)


def unseal(data_key: DataKey, place: Place, sealed: bytes) -> bytes:
    """Raises CannotOpen if the value was not sealed with this data key and for this place."""
    return _unbox(_derive(data_key.key, _PERSON_DATA, (data_key.id, *place)), sealed)


def _derive(key: bytes, person: bytes, context: Sequence[str]) -> bytes:
    # The parts are joined as JSON, because plain joining would give the same message for ("a", "bc") and ("ab", "c").
    message = json.dumps([1, *context]).encode()
    return nacl.hash.blake2b(
        message, digest_size=KEY_BYTES, key=key, person=person, encoder=nacl.encoding.RawEncoder
    )


def _box(key: bytes, plaintext: bytes) -> bytes:
    return _VERSION + bytes(nacl.secret.SecretBox(key).encrypt(plaintext))


def _unbox(key: bytes, sealed: bytes) -> bytes:
    if sealed[:1] != _VERSION:
        raise CannotOpen
    try:
        return bytes(nacl.secret.SecretBox(key).decrypt(sealed[1:]))
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError, ValueError):
        raise CannotOpen from None
