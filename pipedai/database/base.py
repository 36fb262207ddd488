"""The Django engine `pipedai.database`.

It is Django's engine for PostgreSQL, but checks kept connections without a query, and runs prepared statements itself.
"""

import select
import threading
from typing import Any

from django.db import connections
from django.db.backends.postgresql import base
from psycopg import Connection

from pipedai.database.prepared import Prepared

# Django finds a thread's connection in an object of asgiref, which asks each time whether an event loop runs in the
# thread. No event loop uses Django's connections, so Python's own object does. This module is loaded before the first
# connection is made. See docs/decisions/fast-paths.md.
connections._connections = threading.local()  # type: ignore[attr-defined]


class DatabaseWrapper(base.DatabaseWrapper):
    """Tests a kept connection by a query only if its socket has something to read.

    Otherwise the connection is alive.
    """

    # The prepared statements of the present connection.
    prepared: Prepared

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        connection: Connection[Any] = super().get_new_connection(conn_params)
        self.prepared = Prepared(connection)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        """Returns a cursor. The statements that wait are run before those of the cursor."""
        with self.wrap_database_errors:
            self.prepared.flush()
        return super().create_cursor(name)

    def _commit(self) -> None:
        if self.connection is not None:
            with self.wrap_database_errors:
                if self.prepared.commit():
                    return
        super()._commit()  # type: ignore[misc]

    def _rollback(self) -> None:
        if self.connection is not None:
            with self.prepared.through_rollback():
                super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        with self.prepared.through_rollback():
            super()._savepoint_rollback(sid)  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Whether the connection can still be used.

        When a session ends, or the server stops or dies, the server or the kernel sends something on the socket. So a
        socket with nothing to read belongs to a live session. This saves a `SELECT 1` in each request, which is 3 % of
        the request's CPU time. If the network loses all packets, TCP notices after the times in
        `env.DATABASE_PATIENCE`.
        """
        if self.connection is None or self.connection.closed:
            return False
        socket = select.poll()
        socket.register(self.connection.fileno(), select.POLLIN)
        return not socket.poll(0) or bool(super().is_usable())
