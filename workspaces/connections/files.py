"""How files describe a connection."""

import json

from workspaces.connections import services
from workspaces.connections.models import HEADERS, Connection
from workspaces.connections.serializers import ConnectionBody
from workspaces.files.kinds import Kind, Secret, register_kind

register_kind(
    Kind(
        name="connection",
        model=Connection,
        body=ConnectionBody,
        create=services.create_connection,
        update=lambda id_, **said: services.update_connection(connection_id=id_, **said),
        delete=lambda id_, **said: services.delete_connection(connection_id=id_, **said),
        secrets={
            "headers": Secret(
                HEADERS, json.loads, target="mcp_url", stand_in={"Authorization": "secret"}
            )
        },
    )
)
