"""Makes channels, and addresses that were asked whether they want notices."""

from typing import Any

from notices.channels.consent import agree, token_of
from notices.channels.services import CHANNELS
from notices.models import AskedAddress, Channel
from pipedai.events import Actor
from pipedai.ids import new_id
from testing.world.cast import Cast
from testing.world.mails import prove

CHANNEL_URL = "https://hooks.example/planted-path-of-a-channel"
CHANNEL_SECRET = "planted-secret-of-a-channel"  # noqa: S105


def add_channel(cast: Cast, kind: str = "slack", **values: Any) -> Channel:
    """Adds a channel of the cast's environment, as its owner does. One of mail goes to its admin, unless `emails` says
    otherwise; both then prove their addresses, and have agreed to get mail.
    """
    target: dict[str, Any] = {"url": CHANNEL_URL}
    if kind == "email":
        prove(cast.owner, cast.admin)
        for user in (cast.owner, cast.admin):
            user.refresh_from_db()
            agree(cast.environment.id, user)
        target = {"emails": [cast.admin.email]}
    channel_id = CHANNELS.create(
        environment_id=cast.environment.id,
        actor=Actor("user", cast.owner.id),
        values={"name": "On call", "kind": kind, **target, **values},
    )
    return Channel.objects.get(id=channel_id)


def asked_token(cast: Cast, address: str | None = None) -> str:
    """Adds an address that was asked, and returns the token in the mail to it."""
    asked = AskedAddress.objects.create(
        environment=cast.environment,
        address=address or f"{new_id()}@example.com",
        asked_by=cast.owner.id,
    )
    return token_of(asked.id)
