"""The Django engine `pipedai.database`: Django's own for PostgreSQL, with a cheaper health check and cheaper times."""

import select
from datetime import UTC
from typing import Any

from django.db.backends.postgresql import base
from psycopg import Connection, adapters
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

# See docs/decisions/fast-paths.md.
_OWN_LOADER: Any = adapters.get_loader(base.TIMESTAMPTZ_OID, Format.TEXT)


class TimeLoader(Loader):
    """Reads a timestamptz as psycopg does, in C, where Django's loader is Python and takes ten times as long.

    Both give times in UTC, since Django sets each session to it; the attribute tells Django so.
    """

    timezone = UTC

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load = _OWN_LOADER(oid, context).load

    def load(self, data: Buffer) -> Any:
        """The moment that the server's text tells."""
        return self._load(data)


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks the server whether a kept connection lives only if something has happened to it."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        """A connection that reads times by TimeLoader."""
        connection: Connection[Any] = super().get_new_connection(conn_params)
        if self.timezone == UTC:
            connection.adapters.register_loader("timestamptz", TimeLoader)
        return connection

    def is_usable(self) -> bool:
        """Whether the connection can be used.

        A server that ends a session, stops or dies says so on its socket, or the kernel does for it. So a socket
        with nothing to read belongs to a live session, and the `SELECT 1` of each request, 3 % of its CPU, is
        saved. A network that swallows packets is found by TCP, as soon as `env.DATABASE_PATIENCE` says.
        """
        if self.connection is None or self.connection.closed:
            return False
        socket = select.poll()
        socket.register(self.connection.fileno(), select.POLLIN)
        return not socket.poll(0) or bool(super().is_usable())
