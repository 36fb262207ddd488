"""How files describe a connection."""

import json

from workspaces.connections.models import GRANT_SECRETS, HEADERS, Connection
from workspaces.connections.serializers import ConnectionBody
from workspaces.connections.services import CONNECTIONS
from workspaces.files.kinds import NONE, OF_ENVIRONMENT, Kind, Row, Secret, register_kind


def _is_the_services(row: Row, name: str) -> bool:
    """Returns whether the service wrote a field: headers with a token, or the id of a client that it registered."""
    is_oauth = row["grant_type"] != Connection.Grant.HEADERS
    return (name == "headers" and is_oauth) or (
        name in {"clientId", "clientSecret"} and not row["client_given"]
    )


register_kind(
    Kind(
        resource=CONNECTIONS,
        body=ConnectionBody,
        read_too=("client_given",),
        defaults={"scopes": []},
        hides=_is_the_services,
        writes={
            "connection": OF_ENVIRONMENT,
            "connection_authorization": NONE,
            "connection_revocation": NONE,
            "data_key": OF_ENVIRONMENT,
        },
        secrets={
            "headers": Secret(
                HEADERS, json.loads, target="mcp_url", stand_in={"Authorization": "secret"}
            ),
            "clientSecret": Secret(
                GRANT_SECRETS,
                lambda held: json.loads(held).get("client_secret"),
                target="mcp_url",
                stand_in="secret",
                is_renewed=True,
            ),
        },
    )
)
