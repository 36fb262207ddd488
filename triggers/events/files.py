"""How files describe a source of events."""

import json

from triggers.events import sources
from triggers.events.serializers import SourceBody
from triggers.models import SECRETS, EventSource
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Secret, register_kind

register_kind(
    Kind(
        name="source",
        model=EventSource,
        body=SourceBody,
        defaults={"hmac": None, "enabled": True},
        create=sources.create_source,
        update=lambda id_, **said: sources.update_source(source_id=id_, **said),
        delete=lambda id_, **said: sources.delete_source(source_id=id_, **said),
        secrets={"secrets": Secret(SECRETS, json.loads, stand_in=["a secret that stands in"])},
        writes={"event_source": OF_ENVIRONMENT, "data_key": OF_ENVIRONMENT},
    )
)
