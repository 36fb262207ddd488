"""How files describe a source of events."""

import json

from triggers.events.serializers import SourceBody
from triggers.events.sources import SOURCES
from triggers.models import SECRETS
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Secret, register_kind

register_kind(
    Kind(
        resource=SOURCES,
        body=SourceBody,
        defaults={"hmac": None, "enabled": True},
        secrets={"secrets": Secret(SECRETS, json.loads, stand_in=["a secret that stands in"])},
        writes={"event_source": OF_ENVIRONMENT, "data_key": OF_ENVIRONMENT},
    )
)
