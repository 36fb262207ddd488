"""Makes connections."""

from typing import Any
from uuid import UUID

from testing.world.cast import TEST_ACTOR, Cast
from workspaces.connections.services import create_connection

CONNECTION_URL = "https://mcp.example/of-a-connection"
CONNECTION_HEADERS = {"Authorization": "Bearer planted-header-of-a-connection"}


def add_connection(cast: Cast, **values: Any) -> UUID:
    """Adds a connection with planted headers to the cast's environment."""
    given = {
        "name": "Issue tracker",
        "mcp_url": CONNECTION_URL,
        "grant_type": "headers",
        "headers": CONNECTION_HEADERS,
        **values,
    }
    return create_connection(environment_id=cast.environment.id, values=given, actor=TEST_ACTOR)
