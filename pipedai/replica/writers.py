"""Remembers up to which position of the write-ahead log (WAL) a user or an API key has written.

A replica shows somebody what they wrote once it has replayed that position. The primary's table `recent_write` has the
positions, which all processes share. A process that reads a replica writes the readers' row, and only while that is
there do processes remember who writes.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from django.db import DatabaseError, transaction

from pipedai.events import Event
from pipedai.logs import get_logger
from pipedai.sql import execute

log = get_logger(__name__)

# The kinds of callers that read lists.
_READERS = frozenset({"user", "api_key", "staff"})

# The id in the readers' row. Its position is one up to which writes may not have been remembered.
READERS = UUID(int=0)
# The position of the readers' row until it is committed. No replica reaches it.
NOT_YET = 2**63 - 1

# The position is a number of bytes since the beginning of the WAL. `greatest` keeps the later position of two that
# arrive in the wrong order.
_REMEMBER = """
INSERT INTO recent_write AS w (principal_id, position, written_at)
SELECT id, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, statement_timestamp()
FROM unnest(%(ids)s::uuid[]) id WHERE EXISTS (SELECT FROM recent_write WHERE principal_id = %(readers)s) ORDER BY id
ON CONFLICT (principal_id) DO UPDATE
SET position = greatest(w.position, excluded.position), written_at = excluded.written_at
"""
_ANNOUNCE = """
INSERT INTO recent_write (principal_id, position, written_at)
VALUES (%(readers)s, %(not_yet)s, statement_timestamp())
ON CONFLICT (principal_id) DO UPDATE SET written_at = excluded.written_at
"""
# What a process commits after it has looked for the readers' row in vain is not remembered. That commit came before the
# row's, so a position that is read after the row's commit is beyond it.
_BEGIN = """
UPDATE recent_write SET position = pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
WHERE principal_id = %(readers)s AND position = %(not_yet)s
"""
# A replica that is further behind than half a minute is not read at all. So older rows have no effect. The readers' row
# is written anew each hour while a replica is read.
_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT principal_id FROM recent_write WHERE written_at < statement_timestamp() - interval '2 hours'
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM recent_write w USING old WHERE w.principal_id = old.principal_id
"""


def note_writers(sender: Any, events: Iterable[Event], **kwargs: Any) -> None:  # noqa: ARG001
    """Receives the domain events, which every action sends, and remembers their actors after the commit."""
    ids = {event.actor.id for event in events if event.actor.type in _READERS and event.actor.id}
    if ids:
        transaction.on_commit(partial(remember, ids))


def remember(ids: Iterable[UUID]) -> None:
    """Lets these users and keys see what is committed now. An error, as when the primary is away, is only logged."""
    try:
        execute(_REMEMBER, {"ids": list(ids), "readers": READERS})
    except DatabaseError as error:
        log.warning("replica.writer_not_remembered", error=type(error).__name__)


def begin_remembering() -> None:
    """Makes all processes remember who writes, for two hours at least. Call it outside of a transaction."""
    params = {"readers": READERS, "not_yet": NOT_YET}
    execute(_ANNOUNCE, params)
    execute(_BEGIN, params)


def prune_recent_writes(*, limit: int = 10_000) -> int:
    return execute(_PRUNE, {"limit": limit})
