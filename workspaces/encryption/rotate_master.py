"""Encrypts (wraps) every data key with the newest master key (SPEC §8)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from pipedai import crypto
from pipedai.events import SYSTEM, Event, emit
from pipedai.sql import Row, execute, fetch_all
from pipedai.timeouts import Say, patiently
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey

_BATCH = 100

_OLDER = """
SELECT master_key_id, count(*) AS data_keys, count(DISTINCT environment_id) AS environments
FROM data_key WHERE master_key_id <> %(newest)s GROUP BY master_key_id ORDER BY master_key_id
"""

_ENVIRONMENTS = """
SELECT DISTINCT environment_id FROM data_key
WHERE master_key_id <> %(newest)s AND environment_id > %(after)s
ORDER BY environment_id LIMIT %(limit)s
"""

# All data keys of an environment are read and encrypted together, so that one audit row reports them all. To lock the
# keys, the statement waits for transactions that write values under one of them, but not for transactions that only
# read values.
_KEYS = """
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
    return fetch_all(_OLDER, {"newest": keys.masters()[0].id})


def rotate_master_key(
    *, on_progress: Callable[[int], None] = lambda _: None, say: Say = lambda _: None
) -> Rewrapped:
    """Encrypts with the newest master key the data keys of older ones; values stay as they are. Several calls may run
    at once or be killed. A data key that can't be decrypted stays. `on_progress` gets the number of keys of each batch,
    and `say` a sentence at each wait for a lock.
    """
    done, after = Rewrapped(), UUID(int=0)
    newest = keys.masters()[0]
    params = {"newest": newest.id, "limit": _BATCH}
    while rows := fetch_all(_ENVIRONMENTS, {**params, "after": after}):
        environment_ids = [row["environment_id"] for row in rows]
        before = done.data_keys
        patiently(
            partial(_rewrap, {**params, "environment_ids": environment_ids}, newest, done),
            say=say,
            what="a data key",
        )
        after = environment_ids[-1]
        on_progress(done.data_keys - before)
    return done


def _rewrap(params: Row, newest: crypto.MasterKey, done: Rewrapped) -> None:
    """Encrypts the data keys of some environments in the caller's transaction, and emits the events."""
    changed: list[tuple[Row, bytes]] = []
    for row in fetch_all(_KEYS, params):
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
    emit(*(_event(environment_id, count, newest.id) for environment_id, count in old.items()))
    done.environments += len(old)
    done.data_keys += len(changed)


def _event(environment_id: UUID, old: Counter[str], newest: str) -> Event:
    metadata = {"wrappedUnder": [", ".join(sorted(old)), newest], "dataKeys": old.total()}
    return Event(
        "master-key.rotated", SYSTEM, environment_id, "environment", environment_id, metadata
    )
