"""Replaces keys while everything runs: wraps data keys under the newest master key, and replaces data keys."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import IntegrityError, transaction

from pipedai import crypto
from pipedai.events import SYSTEM, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all, fetch_one, fetch_row, in_batches
from pipedai.timeouts import Say, patiently
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey
from workspaces.tenant_columns import SealedField, sealed_fields

# How many rows of values are locked at once. They stay locked only for the milliseconds that their encryption takes.
_BATCH = 100
_OLDER = """
SELECT master_key_id, count(*) AS data_keys, count(DISTINCT environment_id) AS environments
FROM data_key WHERE master_key_id <> %(newest)s GROUP BY master_key_id ORDER BY master_key_id
"""
_WITH_OLDER_KEYS = """
SELECT DISTINCT environment_id FROM data_key
WHERE master_key_id <> %(newest)s AND environment_id > %(after)s
ORDER BY environment_id LIMIT %(limit)s
"""
# All data keys of an environment are read and encrypted together, so that one audit row reports them all. To lock the
# keys, the statement waits for transactions that write values under one of them, but not for transactions that only
# read values.
_OLDER_KEYS = """
SELECT id AS key_id, environment_id, wrapped AS key_wrapped, master_key_id FROM data_key
WHERE master_key_id <> %(newest)s AND environment_id = ANY(%(environment_ids)s)
ORDER BY environment_id, id FOR NO KEY UPDATE
"""
_REWRAP = """
UPDATE data_key k SET wrapped = n.wrapped, master_key_id = %(newest)s
FROM unnest(%(ids)s::uuid[], %(old)s::bytea[], %(wrapped)s::bytea[]) AS n (id, old, wrapped)
WHERE k.id = n.id AND k.wrapped = n.old
"""


@dataclass
class Rewrapped:
    environments: int = 0
    data_keys: int = 0


def older_masters() -> list[Row]:
    """Returns a row for each older master key: how many `data_keys` of how many `environments` it encrypts."""
    return fetch_all(_OLDER, {"newest": crypto.masters()[0].id})


def rotate_master_key(
    *, on_progress: Callable[[int], None] = lambda _: None, say: Say = lambda _: None
) -> Rewrapped:
    """Encrypts the data keys of older master keys with the newest one; values stay as they are. Several calls may run
    at once, and a killed one may be repeated. A data key that can't be decrypted stays. `on_progress` gets the number
    of keys of each batch, and `say` a sentence whenever the call waits for a lock.
    """
    done, newest = Rewrapped(), crypto.masters()[0]
    params = {"newest": newest.id, "limit": _BATCH}
    for rows in in_batches(_WITH_OLDER_KEYS, params, "environment_id"):
        environment_ids = [row["environment_id"] for row in rows]
        before = done.data_keys
        patiently(
            partial(_rewrap, {**params, "environment_ids": environment_ids}, newest, done),
            say=say,
            what="a data key",
        )
        on_progress(done.data_keys - before)
    return done


def _rewrap(params: Row, newest: crypto.MasterKey, done: Rewrapped) -> None:
    """Encrypts the data keys of some environments in the caller's transaction, and emits the events."""
    changed: list[tuple[Row, bytes]] = []
    for row in fetch_all(_OLDER_KEYS, params):
        environment_id = row["environment_id"]
        try:
            opened = keys.unwrap(environment_id, WrappedKey.of(row))
        except crypto.CannotOpen:
            continue
        changed.append((row, crypto.wrap(opened, newest, str(environment_id))))
    if not changed:
        return
    execute(
        _REWRAP,
        {
            "newest": newest.id,
            "ids": [row["key_id"] for row, _ in changed],
            "old": [row["key_wrapped"] for row, _ in changed],
            "wrapped": [wrapped for _, wrapped in changed],
        },
    )
    old: dict[UUID, Counter[str]] = {}
    for row, _ in changed:
        old.setdefault(row["environment_id"], Counter())[row["master_key_id"]] += 1
    for id_, masters in old.items():
        under = [", ".join(sorted(masters)), newest.id]
        metadata = {"wrappedUnder": under, "dataKeys": masters.total()}
        emit(Event("master-key.rotated", SYSTEM, id_, "environment", id_, metadata))
    done.environments += len(old)
    done.data_keys += len(changed)


_BEGIN = """
INSERT INTO data_key_rotation (id, environment_id) VALUES (%(id)s, %(environment_id)s) ON CONFLICT DO NOTHING
"""
_UNDER_WAY = """
SELECT id, started_at FROM data_key_rotation WHERE environment_id IS NOT DISTINCT FROM %(environment_id)s
"""
_END = "DELETE FROM data_key_rotation WHERE id = %(id)s"
_TO_DO = """
(k.retired_at IS NOT NULL OR k.created_at < %(before)s)
    AND (%(environment_id)s::uuid IS NULL OR k.environment_id = %(environment_id)s)
"""
_ENVIRONMENTS = """
FROM environment e WHERE (%(environment_id)s::uuid IS NULL OR e.id = %(environment_id)s) AND (
    EXISTS (
        SELECT FROM data_key k
        WHERE k.environment_id = e.id AND (k.retired_at IS NOT NULL OR k.created_at < %(before)s))
    OR e.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM data_key k WHERE k.environment_id = e.id AND k.retired_at IS NULL))
"""
_COUNT_ENVIRONMENTS = f"SELECT count(*) {_ENVIRONMENTS}"
_COUNT_VALUES = (
    f'SELECT count(*) FROM "{{table}}" v JOIN data_key k ON k.id = v.{{key_column}} WHERE {_TO_DO}'
)
_NEXT = f"""
SELECT e.id AS environment_id {_ENVIRONMENTS} AND e.id > %(after)s ORDER BY e.id LIMIT {_BATCH}
"""
# This statement locks the environment's row, so that two rotations do not replace the environment's data key at once.
_HOLD_ENVIRONMENT = "SELECT FROM environment WHERE id = %(environment_id)s FOR NO KEY UPDATE"
# Locks the data key in use. The statement waits for transactions that are writing a value under the key. Transactions
# that begin later use the new key.
_IN_USE = """
SELECT id AS key_id, wrapped AS key_wrapped, master_key_id, created_at FROM data_key
WHERE environment_id = %(environment_id)s AND retired_at IS NULL
FOR NO KEY UPDATE
"""
_RETIRE = "UPDATE data_key SET retired_at = statement_timestamp() WHERE id = %(id)s"
_RETIRED = """
SELECT id AS key_id, wrapped AS key_wrapped, master_key_id FROM data_key
WHERE environment_id = %(environment_id)s AND retired_at IS NOT NULL ORDER BY id
"""
_LIES_UNDER = (
    '"{table}" v WHERE v.environment_id = %(environment_id)s AND v.{key_column} = %(key_id)s'
)
_ROWS = f"SELECT v.id FROM {_LIES_UNDER} AND v.id > %(after)s ORDER BY v.id LIMIT {_BATCH}"
_VALUES = f"""
SELECT v.id, v.{{column}} AS box FROM {_LIES_UNDER} AND v.id = ANY(%(ids)s) ORDER BY v.id FOR NO KEY UPDATE
"""
_REENCRYPT = """
UPDATE "{table}" v SET {column} = n.box, {key_column} = %(new_key_id)s
FROM unnest(%(ids)s::uuid[], %(old)s::bytea[], %(boxes)s::bytea[]) AS n (id, old, box)
WHERE v.environment_id = %(environment_id)s AND v.id = n.id AND v.{key_column} = %(key_id)s AND v.{column} = n.old
"""
_DROP = """
DELETE FROM data_key WHERE id = %(key_id)s AND environment_id = %(environment_id)s AND retired_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rotation would do. `resumed` is when the unfinished rotation that it would continue began."""

    environments: int
    values: int
    resumed: datetime | None


@dataclass
class Reencrypted:
    environments: int = 0
    new_keys: int = 0
    values: int = 0
    dropped: int = 0


def plan_data_rotation(environment_id: UUID | None) -> Plan:
    rotation = fetch_one(_UNDER_WAY, {"environment_id": environment_id})
    resumed = rotation["started_at"] if rotation else None
    params = {"environment_id": environment_id, "before": resumed or "infinity"}
    counts = [_COUNT_ENVIRONMENTS, *(each.into(_COUNT_VALUES) for each in sealed_fields())]
    environments, *values = (fetch_row(count, params)["count"] for count in counts)
    return Plan(environments, sum(values), resumed)


def rotate_data_keys(
    *,
    environment_id: UUID | None = None,
    replace_lost: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
    say: Say = lambda _: None,
) -> Reencrypted:
    """Gives one environment, or all, a new data key, and encrypts the values of older keys with it in small batches.
    Several calls may run at once, and the next call continues a killed one. A value that can't be decrypted stays, with
    its key. A key in use that can't be decrypted is replaced only with `replace_lost`, because `MASTER_KEYS` may be
    wrong. `on_progress` gets the number of values of each batch, and `say` a sentence when it waits for a lock.
    """
    rotation = _begin(environment_id)
    before = rotation["started_at"]
    done = Reencrypted()
    for each in _environments(environment_id, before):
        done.new_keys += patiently(
            partial(_replace_key, each, before, replace_lost=replace_lost),
            say=say,
            what=f"the data key of environment {each}",
        )
        for old in map(WrappedKey.of, fetch_all(_RETIRED, {"environment_id": each})):
            _empty(each, old, done, on_progress, say)
            done.dropped += _drop(each, old.id)
        done.environments += 1
    execute(_END, {"id": rotation["id"]})
    return done


def _begin(environment_id: UUID | None) -> Row:
    params = {"environment_id": environment_id}
    rotation = None
    # `_BEGIN` may find an unfinished rotation which another process finishes before it can be read. Then the loop
    # begins a new rotation.
    while rotation is None:
        execute(_BEGIN, {**params, "id": new_id()})
        rotation = fetch_one(_UNDER_WAY, params)
    return rotation


def _environments(environment_id: UUID | None, before: datetime) -> Iterator[UUID]:
    params = {"environment_id": environment_id, "before": before}
    for rows in in_batches(_NEXT, params, "environment_id"):
        yield from (row["environment_id"] for row in rows)


def _replace_key(environment_id: UUID, before: datetime, *, replace_lost: bool) -> bool:
    """Replaces the key in use if it was made before `before`. Returns whether it did."""
    params = {"environment_id": environment_id}
    fetch_one(_HOLD_ENVIRONMENT, params)
    row = fetch_one(_IN_USE, params)
    if row is not None:
        if row["created_at"] >= before or not (
            replace_lost or keys.opens(environment_id, WrappedKey.of(row))
        ):
            return False
        execute(_RETIRE, {"id": row["key_id"]})
    new = keys.create_data_key(environment_id, not_before=before)
    metadata = {"dataKeyId": [str(row["key_id"]) if row else None, str(new.id)]}
    emit(Event("data-key.rotated", SYSTEM, environment_id, "data-key", new.id, metadata))
    return True


def _empty(
    environment_id: UUID,
    old: WrappedKey,
    done: Reencrypted,
    on_progress: Callable[[int], None],
    say: Say,
) -> None:
    """Encrypts a retired key's values with the key in use. Values that can't be decrypted stay."""
    params = {"environment_id": environment_id, "key_id": old.id}
    try:
        opened = keys.unwrap(environment_id, old)
        for sealed_field in sealed_fields():
            for rows in in_batches(sealed_field.into(_ROWS), params):
                ids = [row["id"] for row in rows]
                moved = patiently(
                    partial(_move, sealed_field, environment_id, opened, {**params, "ids": ids}),
                    say=say,
                    what=f"values of environment {environment_id}",
                )
                done.values += moved
                on_progress(moved)
    except crypto.CannotOpen:
        # The old or the new data key can't be decrypted. A single value that can't be decrypted is skipped by `_move`.
        return


def _move(
    sealed_field: SealedField, environment_id: UUID, opened: crypto.DataKey, params: Row
) -> int:
    """Re-encrypts one batch of rows in the caller's transaction, and returns how many."""
    rows = fetch_all(sealed_field.into(_VALUES), params)
    # The data key is locked after the rows of the values. `seal` and its callers lock in the same order, so that there
    # is no deadlock.
    key = keys.hold_key_in_use(environment_id)
    fresh = keys.unwrap(environment_id, key)
    moved: list[tuple[Row, bytes]] = []
    for row in rows:
        place = keys.place(sealed_field, environment_id, row["id"])
        try:
            plaintext = crypto.unseal(opened, place, bytes(row["box"]))
        except crypto.CannotOpen:
            continue
        moved.append((row, crypto.seal(fresh, place, plaintext)))
    return execute(
        sealed_field.into(_REENCRYPT),
        {
            **params,
            "new_key_id": key.id,
            "ids": [row["id"] for row, _ in moved],
            "old": [row["box"] for row, _ in moved],
            "boxes": [box for _, box in moved],
        },
    )


def _drop(environment_id: UUID, key_id: UUID) -> bool:
    """Deletes a retired data key, unless a value is still encrypted under it: the foreign key of such a value refuses
    the deletion. Returns whether it did.
    """
    try:
        with transaction.atomic():
            return bool(execute(_DROP, {"environment_id": environment_id, "key_id": key_id}))
    except IntegrityError:
        return False
