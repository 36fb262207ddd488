"""Seals and opens values under an environment's data key, and logs an alarm about each that does not open.

No other module decrypts data keys.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Greatest, Now
from django.dispatch import Signal

from pipedai import crypto
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.api.throttling import Buckets, Rate
from pipedai.crypto import BrokenDataKey, CannotOpen, NoDataKey, UnknownMasterKey
from pipedai.events import once
from pipedai.ids import new_id
from pipedai.logs import get_logger
from pipedai.sql import Row, fetch_one
from workspaces.models import DataKey
from workspaces.tenant_columns import SealedField

log = get_logger(__name__)
# A process repeats the alarm about a value only after five minutes, because workers may ask for it every second.
REPEATED = Rate("alarms", limit=1, seconds=300)
_told = Buckets(REPEATED, 1, most=10_000)
# Each alarm sends this Django signal, by which the metrics count alarms.
alarmed = Signal()
_REASONS = {
    UnknownMasterKey: "its master key is not among MASTER_KEYS",
    BrokenDataKey: "the data key was tampered with, moved or cut, or its master key has changed",
    NoDataKey: "the environment has no data key in use",
    CannotOpen: "the value was tampered with, moved or cut",
}
_CANNOT_SEAL = (
    "The environment's secrets can't be written at the moment: its encryption key does not open."
    " Its operators have been alarmed."
)
# Locks the data key in use until the encrypted value is committed. A rotation waits for this lock before it retires the
# key, so that no value is ever added under a retired key.
_IN_USE = """
SELECT id, wrapped, master_key_id FROM data_key
WHERE environment_id = %(environment_id)s AND retired_at IS NULL
FOR SHARE
"""
# How many times a call looks for the data key in use before it gives up. A statement that had to wait for a rotation's
# lock sees that the old key is retired, but it can't see the new key, which is younger than the statement. The next
# statement finds it.
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value and the id of the data key that decrypts it. Tables keep the two in two columns."""

    box: bytes = field(repr=False)
    data_key_id: UUID


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as the database has it: encrypted under a master key."""

    id: UUID
    wrapped: bytes = field(repr=False)
    master_key_id: str

    @classmethod
    def of(cls, row: Row, prefix: str = "") -> "WrappedKey":
        """Returns the key in a row of SQL. The names of its columns begin with `prefix`."""
        wrapped = bytes(row[f"{prefix}key_wrapped"])
        return cls(row[f"{prefix}key_id"], wrapped, row[f"{prefix}master_key_id"])


def create_data_key(environment_id: UUID, *, not_before: datetime | None = None) -> DataKey:
    """Makes a data key. Its `created_at` is not before `not_before`, even if the database's clock was put back."""
    key_id = new_id()
    master = crypto.masters()[0]
    wrapped = crypto.wrap(crypto.new_data_key(str(key_id)), master, str(environment_id))
    return DataKey.objects.create(
        id=key_id,
        environment_id=environment_id,
        wrapped=wrapped,
        master_key_id=master.id,
        created_at=Greatest(Now(), Value(not_before)) if not_before else Now(),
    )


def seal(sealed_field: SealedField, environment_id: UUID, row_id: UUID, plaintext: bytes) -> Sealed:
    """Encrypts a value under the environment's data key, in one query. Call it in the transaction that writes the
    value, after any lock on its row. If the key is missing or can't be decrypted, logs an alarm and raises Unavailable.
    """
    key = None
    try:
        key = once(("data key", environment_id), lambda: hold_key_in_use(environment_id))
        opened = unwrap(environment_id, key)
    except crypto.CannotOpen as error:
        _alarm_of_key(error, environment_id, key)
        raise Unavailable(_CANNOT_SEAL, code=ErrorCode.ENCRYPTION_UNAVAILABLE) from None
    return Sealed(
        crypto.seal(opened, place(sealed_field, environment_id, row_id), plaintext), key.id
    )


def unseal(
    sealed_field: SealedField, environment_id: UUID, row_id: UUID, box: bytes, key: WrappedKey
) -> bytes:
    """Decrypts what `seal` made, without a query. Logs an alarm and raises crypto.CannotOpen if that fails."""
    try:
        opened = unwrap(environment_id, key)
    except crypto.CannotOpen as error:
        _alarm_of_key(error, environment_id, key)
        raise
    try:
        return crypto.unseal(opened, place(sealed_field, environment_id, row_id), box)
    except crypto.CannotOpen as error:
        raise_alarm(
            error,
            environment_id=environment_id,
            table=sealed_field.table,
            row_id=row_id,
            field=sealed_field.column,
            wrapped_under=key.master_key_id,
        )
        raise


def unseal_row(sealed_field: SealedField, row: Row, row_id: UUID, prefix: str = "") -> bytes:
    """Does what `unseal` does for a row of SQL. The names of the columns of the data key begin with `prefix`."""
    box = bytes(row[f"{prefix}{sealed_field.column}"])
    return unseal(sealed_field, row["environment_id"], row_id, box, WrappedKey.of(row, prefix))


def seal_into(sealed_field: SealedField, row: Any, plaintext: bytes) -> None:
    """Does what `seal` does, and puts the result into the row, which the caller saves in the same transaction."""
    sealed = seal(sealed_field, row.environment_id, row.id, plaintext)
    setattr(row, sealed_field.column, sealed.box)
    setattr(row, sealed_field.key_column, sealed.data_key_id)


def unseal_from(sealed_field: SealedField, row: Any) -> bytes | None:
    """Does what `unseal` does for a value of the row; None if the row has none."""
    box = getattr(row, sealed_field.column)
    if box is None:
        return None
    key: DataKey = getattr(row, sealed_field.key_column.removesuffix("_id"))
    wrapped = WrappedKey(key.id, bytes(key.wrapped), key.master_key_id)
    return unseal(sealed_field, row.environment_id, row.id, bytes(box), wrapped)


def hold_key_in_use(environment_id: UUID) -> WrappedKey:
    """Returns the data key in use, locked so that it stays so until the transaction ends. Raises crypto.NoDataKey."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("sealing needs a transaction")
    for _ in range(_LOOKS):
        row = fetch_one(_IN_USE, {"environment_id": environment_id})
        if row is not None:
            return WrappedKey(row["id"], bytes(row["wrapped"]), row["master_key_id"])
    raise crypto.NoDataKey


def unwrap(environment_id: UUID, key: WrappedKey) -> crypto.DataKey:
    """Decrypts a data key. Raises crypto.UnknownMasterKey or crypto.BrokenDataKey; the caller logs the alarm."""
    return crypto.unwrap(
        key.wrapped, str(key.id), key.master_key_id, str(environment_id), crypto.masters()
    )


def opens(environment_id: UUID, key: WrappedKey) -> bool:
    try:
        unwrap(environment_id, key)
    except crypto.CannotOpen:
        return False
    return True


def place(sealed_field: SealedField, environment_id: UUID, row_id: UUID) -> crypto.Place:
    """Returns the place of a value. A value encrypted for one place can't be decrypted for another."""
    return crypto.Place(str(environment_id), sealed_field.table, sealed_field.column, str(row_id))


def _alarm_of_key(error: crypto.CannotOpen, environment_id: UUID, key: WrappedKey | None) -> None:
    # The environment has no data key, so the alarm names the environment instead.
    raise_alarm(
        error,
        environment_id=environment_id,
        table="data_key" if key else "environment",
        row_id=key.id if key else environment_id,
        field="wrapped" if key else "data_key",
        wrapped_under=key.master_key_id if key else None,
    )


def reason_of(error: CannotOpen) -> str:
    return _REASONS[type(error)]


def raise_alarm(
    error: CannotOpen,
    *,
    environment_id: UUID,
    table: str,
    row_id: UUID,
    field: str,
    wrapped_under: str | None,
    now: float | None = None,
) -> None:
    """Logs an alarm, unless this process has lately logged one about the same place. `wrapped_under` is the master key
    of the value's data key, or None; `now` is monotonic.
    """
    now = time.monotonic() if now is None else now
    if _told.take((environment_id, table, row_id, field), now=now):
        return
    log.error(
        "secret.cannot_open",
        environment_id=str(environment_id),
        table=table,
        row_id=str(row_id),
        field=field,
        reason=reason_of(error),
        wrapped_under=wrapped_under,
    )
    alarmed.send(sender=None)
