"""Opens the connection that LISTEN runs on."""

import asyncio
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.utils import ConnectionHandler
from psycopg import AsyncConnection

from pipedai import env

# A peer that vanished is noticed within a minute, though nothing is ever sent on this connection.
_KEEPALIVE = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "pipedai-listen",
}
# Django's own, which mean nothing here.
_NOT_OURS = ("cursor_factory", "context", "prepare_threshold")


async def connect() -> AsyncConnection:
    """A new connection to the database's notifications.

    It starts no embedded server: the first request does, and a stopped one stays stopped.
    """
    return await AsyncConnection.connect(**await asyncio.to_thread(listen_params), autocommit=True)


def listen_params() -> dict[str, Any]:
    """psycopg's arguments for a connection that may LISTEN: past PgBouncer, where there is one."""
    handler = connections
    if settings.DATABASE_LISTEN_URL:
        handler = ConnectionHandler({"default": env.database_config(settings.DATABASE_LISTEN_URL)})
    params = handler["default"].get_connection_params()
    return {**{k: v for k, v in params.items() if k not in _NOT_OURS}, **_KEEPALIVE}
