"""How files describe a channel."""

from notices.channels.serializers import DEFAULTS, ChannelBody
from notices.channels.services import CHANNELS
from notices.models import SECRET, URL
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Secret, register_kind
from workspaces.roles import Role

register_kind(
    Kind(
        resource=CHANNELS,
        body=ChannelBody,
        readers=Role.ADMIN,
        defaults=DEFAULTS,
        # Only channels of the kind `email` have addresses.
        finish=lambda row: {**row, "emails": row["emails"] or None},
        references={"triggers": "trigger"},
        # In files `kind` already means the kind of row, so the channel's kind is called `type`.
        renamed={"type": "kind"},
        secrets={
            "url": Secret(URL, bytes.decode, stand_in="https://hooks.example.com/stands-in"),
            # A secret belongs to one server, so a change of the URL may remove it.
            "secret": Secret(SECRET, bytes.decode, target="url", is_sent=False, lost_with=("url",)),
        },
        writes={"channel": OF_ENVIRONMENT, "data_key": OF_ENVIRONMENT},
    )
)
