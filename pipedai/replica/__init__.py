"""Reads lists and statistics from a standby, if REPLICA_DATABASE_URL names one (docs/scaling.md).

`reading` decides for each request whether the standby may answer, and remembers which callers have written lately.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

# The alias of the replica in DATABASES, which has it only if REPLICA_DATABASE_URL is set.
REPLICA = "replica"


class _Where(threading.local):
    alias = DEFAULT_DB_ALIAS


# `where.alias` is the database to which this thread sends its reads now. `pipedai.sql` asks it for each statement.
where = _Where()


def is_on() -> bool:
    return REPLICA in connections.databases


@contextmanager
def reading_replica() -> Iterator[None]:
    where.alias = REPLICA
    try:
        yield
    finally:
        where.alias = DEFAULT_DB_ALIAS


class ReplicaRouter:
    """Sends the ORM's reads to the database from which the thread reads now, and all writes to the primary."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return where.alias

    def db_for_write(self, model: type, **hints: Any) -> str:
        return DEFAULT_DB_ALIAS

    def allow_relation(self, obj1: object, obj2: object, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Only the primary is migrated, because the replica copies all changes of the primary."""
        return db == DEFAULT_DB_ALIAS
