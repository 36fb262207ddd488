"""Creates, changes, deletes and tests channels (SPEC §14), each with its audit event in the same transaction."""

from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from accounts.proof import check_mail_is_on
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
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.outgoing import host_of
from pipedai.redaction import REDACTED
from pipedai.sql import Row, database_now
from triggers.models import Trigger
from workspaces.ceilings import check_ceiling
from workspaces.encryption import keys
from workspaces.files.columns import keeping_keys
from workspaces.locks import hold_role, lock_environment, lock_row
from workspaces.models import DataKey
from workspaces.roles import Role

# The settings that the audit log shows, by their columns, with their names in the API.
_SHOWN: Final = {
    "name": "name",
    "events": "events",
    "trigger_ids": "triggerIds",
    "tells_when": "when",
    "summary": "summary",
    "enabled": "enabled",
    "key": "key",
    "managed_by": "managedBy",
}
_ONLY_WEBHOOKS: Final = "Only a channel of the kind webhook has it."


def create_channel(
    *, environment_id: UUID, actor: Actor, values: dict[str, Any], id_: UUID | None = None
) -> UUID:
    """Creates a channel from a ChannelBody's values, and returns its id, which is `id_` if that is given. Raises
    NotFound, Invalid for values that don't fit the kind, CeilingReached, Conflict if its mail can't be sent, and the
    errors of `hold_role`.
    """
    values = DEFAULTS | values
    channel = Channel(
        id=id_ or new_id(),
        environment_id=environment_id,
        kind=values["kind"],
        created_by=actor.id if actor.type == "user" else None,
    )
    with keeping_keys():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        _check_ceiling(environment_id)
        _apply(channel, values)
        channel.save(force_insert=True)
        ask_new_addresses(channel, channel.emails, actor)
        metadata = {"name": channel.name, "kind": channel.kind}
        emit(_event("channel.created", channel, actor, metadata))
    return channel.id


def update_channel(*, channel_id: UUID, actor: Actor, values: dict[str, Any]) -> None:
    """Changes the given values of a channel. If the URL moves to another origin without a new secret, the secret is
    removed, because it is for one server only. Raises NotFound, Invalid, Conflict, and the errors of `hold_role`.
    """
    with keeping_keys():
        channel = _locked(channel_id, actor)
        old_emails = set(channel.emails)
        if changes := _apply(channel, values):
            channel.updated_at = Now()
            channel.save(force_update=True)
            new = [address for address in channel.emails if address not in old_emails]
            ask_new_addresses(channel, new, actor)
            emit(_event("channel.updated", channel, actor, changes))


def delete_channel(*, channel_id: UUID, actor: Actor) -> None:
    """Marks a channel as deleted, and removes its URL and secret. Due notices are then given up. Raises NotFound."""
    with transaction.atomic():
        channel = _locked(channel_id, actor)
        Channel.objects.filter(id=channel.id).update(
            deleted_at=Now(),
            url=None,
            url_key=None,
            secret=None,
            secret_key=None,
            summary_due_at=None,
            summary_since=None,
        )
        emit(_event("channel.deleted", channel, actor, {"name": channel.name}))


def test_channel(*, channel_id: UUID, actor: Actor) -> list[UUID]:
    """Queues a test notice for each address that gets mail now, or one for a channel without addresses. Raises
    NotFound, Conflict for a disabled channel or an actor who may not have mail sent to others.
    """
    with transaction.atomic():
        channel = _locked(channel_id, actor)
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
        emit(_event("channel.tested", channel, actor, {"name": channel.name}))
    return [notice.id for notice in queued]


def _locked(channel_id: UUID, actor: Actor) -> Channel:
    return lock_row(Channel.objects.filter(id=channel_id, deleted_at__isnull=True), actor)


def _check_ceiling(environment_id: UUID) -> None:
    live = Channel.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    check_ceiling("channels", "channels", environment_id=environment_id, rows=live)


def _apply(channel: Channel, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes for the audit row, which does not show the URL, the secret and the addresses."""
    _check_fit(channel, values)
    changes: dict[str, Any] = {}
    _check_triggers(channel, values)
    for name, shown in _SHOWN.items():
        if name in values and values[name] != getattr(channel, name):
            changes[shown] = [getattr(channel, name), values[name]]
            setattr(channel, name, values[name])
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


def _event(action: str, channel: Channel, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, channel.environment_id, "channel", channel.id, metadata)
