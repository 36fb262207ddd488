"""How files describe a channel."""

from notices.channels import services
from notices.channels.models import SECRET, URL, Channel
from notices.channels.serializers import DEFAULTS, ChannelBody
from workspaces.files.kinds import OF_ENVIRONMENT, Kind, Secret, register_kind
from workspaces.roles import Role

register_kind(
    Kind(
        name="channel",
        model=Channel,
        body=ChannelBody,
        readers=Role.ADMIN,
        defaults=DEFAULTS,
        # Only channels of the kind `email` have addresses.
        finish=lambda row: {**row, "emails": row["emails"] or None},
        create=services.create_channel,
        update=lambda id_, **said: services.update_channel(channel_id=id_, **said),
        delete=lambda id_, **said: services.delete_channel(channel_id=id_, **said),
        references={"triggers": "trigger"},
        # In files `kind` is the kind of row.
        renamed={"type": "kind"},
        secrets={
            "url": Secret(URL, bytes.decode, stand_in="https://hooks.example.com/stands-in"),
            # It is for one server: another URL may remove it.
            "secret": Secret(SECRET, bytes.decode, target="url", is_sent=False, lost_with=("url",)),
        },
        writes={"channel": OF_ENVIRONMENT, "data_key": OF_ENVIRONMENT},
    )
)
