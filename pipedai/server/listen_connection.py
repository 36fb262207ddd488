"""Opens the connections that the event loop uses itself: one for LISTEN, and one for heartbeats."""

import asyncio
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.utils import ConnectionHandler
from psycopg import AsyncConnection

from pipedai import env

# Options that Django adds to its own connections. The connections of the event loop must not get them.
_NOT_OURS = ("cursor_factory", "context", "prepare_threshold")


async def connect() -> AsyncConnection:
    """Return a new connection for the database's notifications.

    It never starts an embedded PostgreSQL: the first request starts it, and a stopped one stays stopped.
    """
    return await AsyncConnection.connect(**await asyncio.to_thread(listen_params), autocommit=True)


def listen_params() -> dict[str, Any]:
    """Return psycopg's arguments for a connection that can LISTEN, which goes past PgBouncer if there is one."""
    handler = connections
    if settings.DATABASE_LISTEN_URL:
        handler = ConnectionHandler({"default": env.database_config(settings.DATABASE_LISTEN_URL)})
    return _params(handler, "pipedai-listen")


async def connect_as_requests() -> AsyncConnection:
    """Return a new connection that takes the same way to the database as requests, through a pooler if there is one.

    It never starts an embedded PostgreSQL.
    """
    params = await asyncio.to_thread(_params, connections, "pipedai-heartbeat")
    # A pooler may run each statement in another session, which does not know statements prepared before.
    return await AsyncConnection.connect(**params, autocommit=True, prepare_threshold=None)


def _params(handler: ConnectionHandler, name: str) -> dict[str, Any]:
    params = handler["default"].get_connection_params()
    ours = {option: value for option, value in params.items() if option not in _NOT_OURS}
    return {**ours, "application_name": name}
