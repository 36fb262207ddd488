"""The Django engine `pipedai.database`: Django's for PostgreSQL, with faster checks of connections and times."""

import select
import threading
from datetime import UTC
from typing import Any

from django.db import connections
from django.db.backends.postgresql import base
from psycopg import Connection, adapters
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format, TransactionStatus

from pipedai.database.prepared import Prepared

# psycopg's loader of times in C, which is ten times as fast as Django's. See docs/decisions/fast-paths.md.
_OWN_LOADER: Any = adapters.get_loader(base.TIMESTAMPTZ_OID, Format.TEXT)

# Django finds a thread's connection in an object of asgiref, which asks each time whether an event loop runs in the
# thread. No event loop uses Django's connections, so Python's own object does. This module is loaded before the first
# connection is made. See docs/decisions/fast-paths.md.
connections._connections = threading.local()  # type: ignore[attr-defined]


class TimeLoader(Loader):
    """Reads a timestamptz with psycopg's loader in C, ten times as fast as Django's. Both return UTC, as Django sets
    each session to it; Django reads `timezone` to learn that.
    """

    timezone = UTC

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load = _OWN_LOADER(oid, context).load

    def load(self, data: Buffer) -> Any:
        return self._load(data)


class DatabaseWrapper(base.DatabaseWrapper):
    """Tests a kept connection by a query only if its socket has something to read."""

    # The prepared statements of the present connection.
    prepared: Prepared

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        connection: Connection[Any] = super().get_new_connection(conn_params)
        if self.timezone == UTC:
            connection.adapters.register_loader("timestamptz", TimeLoader)
        self.prepared = Prepared(connection)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        with self.wrap_database_errors:
            self.prepared.flush()
        return super().create_cursor(name)

    def _commit(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                if self.prepared.commit():
                    return
        super()._commit()  # type: ignore[misc]

    def _set_autocommit(self, autocommit: bool) -> None:
        # psycopg's setter does the same by a generator that it waits for, under a lock.
        # See docs/decisions/fast-paths.md.
        connection: Any = self.connection
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            connection._autocommit = autocommit
        else:
            super()._set_autocommit(autocommit)  # type: ignore[misc]

    def _rollback(self) -> None:
        if self.connection is not None:
            with self.prepared.through_rollback():
                super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        with self.prepared.through_rollback():
            super()._savepoint_rollback(sid)  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Whether the connection lives. The end of a session or server sends something on the socket, so no query is
        needed while nothing can be read, which saves 3 % of a request's CPU time. `env.DATABASE_PATIENCE` is for a dead
        network.
        """
        if self.connection is None or self.connection.closed:
            return False
        socket = select.poll()
        socket.register(self.connection.fileno(), select.POLLIN)
        return not socket.poll(0) or bool(super().is_usable())
