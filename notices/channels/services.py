"""Creates, changes, deletes and tests channels (SPEC §14), each with its audit event in the same transaction."""

from typing import Any, Final
from uuid import UUID

from django.db import transaction

from accounts.addresses import check_mail_is_on
from notices.channels.announcements import Announcement
from notices.channels.models import SECRET, URL, Channel
from notices.channels.new_addresses import ask_new_addresses, check_may_mail
from notices.channels.queueing import queue_notices
from notices.channels.serializers import DEFAULTS
from notices.channels.summaries import next_summary
from notices.states import RUN_ENDED, TEST
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.outside_urls import is_elsewhere
from pipedai.crypto import CannotOpen
from pipedai.events import Actor
from pipedai.outgoing import host_of
from pipedai.redaction import REDACTED
from pipedai.sql import Row, database_now
from triggers.models import Trigger
from workspaces.encryption import keys
from workspaces.models import DataKey
from workspaces.resources import Resource

# The values that the audit log does not show.
_HIDDEN: Final = frozenset({"emails", "url", "secret"})
_ONLY_WEBHOOKS: Final = "Only a channel of the kind webhook has it."


class Channels(Resource[Channel]):
    """Due notices of a deleted channel are given up."""

    noun = "channel"
    model = Channel
    emptied = ("url", "url_key", "secret", "secret_key", "summary_due_at", "summary_since")
    described_by = {"kind": "kind"}
    tells_all = True

    def apply(self, channel: Channel, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """If the URL moves to another origin without a new secret, the secret is removed, because it is for one server
        only. Raises also Conflict if its mail can't be sent.
        """
        if channel._state.adding:
            values = DEFAULTS | values
            channel.kind = values["kind"]
            channel.created_by = actor.id if actor.type == "user" else None
        _check_fit(channel, values)
        _check_triggers(channel, values)
        plain = {name: value for name, value in values.items() if name not in _HIDDEN}
        changes = super().apply(channel, plain, actor)
        if "tellsWhen" in changes:
            changes["when"] = changes.pop("tellsWhen")
        if changes.keys() & {"summary", "enabled"}:
            _plan_summary(channel)
        emails = values.get("emails") or channel.emails
        if emails != channel.emails:
            check_mail_is_on()
            channel.emails = emails
            changes["emails"] = REDACTED
        if values.get("url"):
            values = _apply_url(channel, values, changes)
        if "secret" in values and (values["secret"] or channel.secret is not None):
            channel.secret, channel.secret_key_id = None, None
            if values["secret"]:
                secret = values["secret"].encode()
                sealed = keys.seal(SECRET, channel.environment_id, channel.id, secret)
                channel.secret, channel.secret_key_id = sealed.box, sealed.data_key_id
            changes["secret"] = REDACTED
        return changes

    def follow_up(self, channel: Channel, before: Channel | None, actor: Actor) -> None:
        """Asks the owners of new addresses."""
        old = set(before.emails) if before else set()
        ask_new_addresses(
            channel, [address for address in channel.emails if address not in old], actor
        )


CHANNELS = Channels()


def test_channel(*, channel_id: UUID, actor: Actor) -> list[UUID]:
    """Queues a test notice for each address that gets mail now, or one for a channel without addresses. Raises
    NotFound, Conflict for a disabled channel or an actor who may not have mail sent to others.
    """
    with transaction.atomic():
        channel = CHANNELS.lock(channel_id, actor)
        if not channel.enabled:
            raise Conflict("The channel is disabled.", code=ErrorCode.CHANNEL_DISABLED)
        check_may_mail(channel.emails, actor)
        now = database_now()
        row: Row = {
            "id": channel.id,
            "environment_id": channel.environment_id,
            "kind": channel.kind,
            "emails": channel.emails,
            "host": channel.host,
            "events": [TEST],
            "now": now,
        }
        queued = queue_notices([row], [Announcement(channel.environment_id, TEST, "A test", now)])
        CHANNELS.emit("tested", channel, actor, {"name": channel.name})
    return [notice.id for notice in queued]


def _check_triggers(channel: Channel, values: dict[str, Any]) -> None:
    """Raises Invalid if a trigger that the channel did not have yet is none of its environment's."""
    new = set(values.get("trigger_ids") or ()) - set(channel.trigger_ids or ())
    live = Trigger.objects.filter(environment_id=channel.environment_id, deleted_at__isnull=True)
    if new and live.filter(id__in=new).count() < len(new):
        raise Invalid({"triggerIds": ["No such trigger in this environment."]})


def _plan_summary(channel: Channel) -> None:
    """Sets when the next summary is due. It tells what came since the last one, or since there is to be one."""
    channel.summary_due_at = None
    if channel.summary is None or not channel.enabled:
        channel.summary_since = None
        return
    now = database_now()
    channel.summary_due_at = next_summary(channel.summary, now)
    channel.summary_since = channel.summary_since or now


def _apply_url(channel: Channel, values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sets a new URL. Returns the values; they remove the secret if the origin changed and no secret came."""
    url = values["url"]
    old = _url_of(channel)
    if url == old:
        return values
    sealed = keys.seal(URL, channel.environment_id, channel.id, url.encode())
    channel.url, channel.url_key_id = sealed.box, sealed.data_key_id
    channel.host = host_of(url)
    changes["url"] = REDACTED
    if old is None or is_elsewhere(old, url):
        return {"secret": None, **values}
    return values


def _url_of(channel: Channel) -> str | None:
    """Returns the URL that the channel has; None if it has none or it can't be decrypted."""
    if channel.url is None or channel.url_key_id is None:
        return None
    key = DataKey.objects.get(id=channel.url_key_id)
    wrapped = keys.WrappedKey(key.id, bytes(key.wrapped), key.master_key_id)
    try:
        url = keys.unseal(URL, channel.environment_id, channel.id, bytes(channel.url), wrapped)
    except CannotOpen:
        return None
    return url.decode()


def _check_fit(channel: Channel, values: dict[str, Any]) -> None:
    """Raises Invalid if the values don't fit the channel's kind."""
    errors: dict[str, list[str]] = {}
    if values.get("kind", channel.kind) != channel.kind:
        errors["kind"] = ["It can't be changed."]
    is_mail = channel.kind == Channel.Kind.EMAIL
    is_webhook = channel.kind == Channel.Kind.WEBHOOK
    if is_mail and not values.get("emails", channel.emails):
        errors["emails"] = ["A channel of the kind email needs at least one."]
    if not is_mail and values.get("emails"):
        errors["emails"] = ["Only a channel of the kind email has addresses."]
    if is_mail and values.get("url"):
        errors["url"] = ["A channel of the kind email has none."]
    if not is_mail and not values.get("url", channel.url):
        errors["url"] = [f"A channel of the kind {channel.kind} needs one."]
    if not is_webhook and values.get("secret"):
        errors["secret"] = [_ONLY_WEBHOOKS]
    if not is_webhook and RUN_ENDED in values.get("events", []):
        errors["events"] = [f"Only a channel of the kind webhook tells of {RUN_ENDED}."]
    if errors:
        raise Invalid(errors)
