"""Creates, changes, deletes and tests channels, each with its audit event in the same transaction, and asks the owners
of new addresses whether they want mail.
"""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from accounts.addresses import check_mail_is_on, check_proof, proof_counts
from accounts.models import User
from notices.channels.announcements import Announcement
from notices.channels.consent import agree
from notices.channels.queueing import queue_for, queue_notices
from notices.channels.serializers import DEFAULTS
from notices.channels.summaries import next_summary
from notices.models import SECRET, URL, AskedAddress, Channel, RefusedAddress
from notices.states import CONFIRM, RUN_ENDED, TEST
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, Invalid
from pipedai.api.outside_urls import is_elsewhere
from pipedai.api.throttling import Rate, count_hit
from pipedai.crypto import CannotOpen
from pipedai.events import Actor, is_rehearsal
from pipedai.outgoing.posts import host_of
from pipedai.redaction import REDACTED
from pipedai.sql import Row, database_now, execute, fetch_row
from triggers.models import Trigger
from workspaces.ceilings import PROFILE
from workspaces.encryption import keys
from workspaces.models import ApiKey
from workspaces.resources import Resource

# The values that the audit log does not show.
_HIDDEN: Final = frozenset({"emails", "url", "secret"})
_ONLY_WEBHOOKS: Final = "Only a channel of the kind webhook has it."
_NOBODY: Final = "Nobody with a confirmed e-mail address answers for this key: let a user add the e-mail addresses."

# These locks make requests wait for each other that add addresses for one user, or in one workspace. Without them two
# requests at once could both add the last address that is allowed. triggers/trigger_ceiling.py explains why they are
# advisory locks and not locks of rows.
_TAKE_TURNS: Final = """
SELECT pg_advisory_xact_lock(hashtextextended('addresses of ' || %(user_id)s::text, 0)),
    pg_advisory_xact_lock(hashtextextended('addresses in ' || e.workspace_id, 0))
FROM environment e WHERE e.id = %(environment_id)s
"""
_LATELY: Final = "asked_at > statement_timestamp() - interval '1 day'"
_COUNT: Final = f"""
SELECT (SELECT count(*) FROM asked_address
    WHERE asked_by = %(user_id)s AND address <> %(own)s AND {_LATELY}) AS by_user,
    (SELECT count(*) FROM environment here JOIN environment e ON e.workspace_id = here.workspace_id
     JOIN asked_address a ON a.environment_id = e.id AND a.{_LATELY}
     WHERE here.id = %(environment_id)s) AS in_workspace,
    greatest((w.ceilings ->> 'newAddresses')::int, %(most_by_user)s) AS most_by_user,
    greatest((w.ceilings ->> 'newAddressesInWorkspace')::int, %(most_in_workspace)s) AS most_in_workspace
FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s
"""  # noqa: S608


class Channels(Resource[Channel]):
    """Changes channels. Deleting a channel gives up its pending notices."""

    noun = "channel"
    model = Channel
    emptied = ("url", "url_key", "secret", "secret_key", "summary_due_at", "summary_since")
    described_by = {"kind": "kind"}
    tells_all = True

    def apply(self, channel: Channel, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """If the URL moves to another origin without a new secret, the secret is removed, because it is for one server
        only. Also raises Conflict if the actor may not have mail sent.
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
                keys.seal_into(SECRET, channel, values["secret"].encode())
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
    NotFound; raises Conflict for a disabled channel, or for an actor who may not have mail sent to others.
    """
    with transaction.atomic():
        channel = CHANNELS.lock(channel_id, actor)
        if not channel.enabled:
            raise Conflict("The channel is paused.", code=ErrorCode.CHANNEL_DISABLED)
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
    """Raises Invalid if a trigger that is new to the channel is not in the channel's environment."""
    new = set(values.get("trigger_ids") or ()) - set(channel.trigger_ids or ())
    live = Trigger.objects.filter(environment_id=channel.environment_id, deleted_at__isnull=True)
    if new and live.filter(id__in=new).count() < len(new):
        raise Invalid({"triggerIds": ["No such trigger in this environment."]})


def _plan_summary(channel: Channel) -> None:
    """Sets when the next summary is due. It covers the time since the last one, or since there is to be one."""
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
    keys.seal_into(URL, channel, url.encode())
    channel.host = host_of(url)
    changes["url"] = REDACTED
    if old is None or is_elsewhere(old, url):
        return {"secret": None, **values}
    return values


def _url_of(channel: Channel) -> str | None:
    """Returns the URL that the channel has; None if it has none or it can't be decrypted."""
    try:
        url = keys.unseal_from(URL, channel)
    except CannotOpen:
        return None
    return None if url is None else url.decode()


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
        errors["emails"] = ["Only a channel of the kind email has e-mail addresses."]
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


def check_may_mail(addresses: Collection[str], actor: Actor) -> User | None:
    """Raises Conflict if the actor has not confirmed their own e-mail address. Returns the user who is responsible for
    the mail. Returns None if no proof is needed: for the user's own address alone, or in a viewer's plan of files,
    which the system makes and rolls back.
    """
    if not proof_counts() or not addresses or actor.type == "system":
        return None
    user = _user_of(actor)
    if user is None:
        raise Conflict(_NOBODY, code=ErrorCode.EMAIL_UNVERIFIED)
    if not user.has_proved_email and set(addresses) == {user.email}:
        # The user gets no notices before they confirm this address, and an earlier mail has asked them to confirm it.
        return None
    check_proof(user)
    return user


def ask_new_addresses(channel: Channel, addresses: Collection[str], actor: Actor) -> None:
    """Queues a mail that asks for consent to each new address, except the actor's own. Call it in the transaction that
    adds the addresses, with the environment locked. Raises Conflict as `check_may_mail` does, and CeilingReached for
    too many in a day. A rehearsal (a plan of files) neither asks nor counts, because it could delay others.
    """
    if not addresses:
        return
    user, environment_id = check_may_mail(addresses, actor), channel.environment_id
    if is_rehearsal():
        return
    others = set(addresses)
    owner = user or _user_of(actor)
    if owner is not None and owner.email in others:
        others.remove(owner.email)
        agree(environment_id, owner)
    if user is None:
        return
    asked = AskedAddress.objects.filter(environment_id=environment_id, address__in=others)
    others -= set(asked.values_list("address", flat=True))
    refused = RefusedAddress.objects.filter(address__in=others)
    new = sorted(others - set(refused.values_list("address", flat=True)))
    if new:
        _check_room(environment_id, user, len(new))
        AskedAddress.objects.bulk_create(
            [
                AskedAddress(environment_id=environment_id, address=address, asked_by=user.id)
                for address in new
            ]
        )
        _count_asks(new)
        question = Announcement(environment_id, CONFIRM, "", database_now(), {"by": user.email})
        for address in new:
            queue_for(channel, question, address)


def _count_asks(addresses: Collection[str]) -> None:
    """Counts one mail to each address, because many environments together could fill somebody's mailbox."""
    rate = Rate("ask-address", limit=PROFILE["asksOfAddress"], seconds=86_400)
    # The addresses are counted in sorted order, because two requests that count the same ones in different orders could
    # deadlock.
    for address in sorted(addresses):
        if count_hit(rate, address)[0] > rate.limit:
            raise CeilingReached(
                "asksOfAddress", f"An e-mail address is asked {rate.limit} times a day at most."
            )


def _user_of(actor: Actor) -> User | None:
    """Returns the user who acts. For an API key this is the user who minted the key."""
    if actor.id is None:
        return None
    if actor.type == "api_key":
        key = ApiKey.objects.filter(id=actor.id).select_related("created_by").first()
        return key.created_by if key else None
    return User.objects.filter(id=actor.id).first() if actor.type == "user" else None


def _check_room(environment_id: UUID, user: User, new: int) -> None:
    params = {
        "environment_id": environment_id,
        "user_id": user.id,
        "own": user.email,
        "most_by_user": PROFILE["newAddresses"],
        "most_in_workspace": PROFILE["newAddressesInWorkspace"],
    }
    execute(_TAKE_TURNS, params)
    row = fetch_row(_COUNT, params)
    if row["by_user"] + new > row["most_by_user"]:
        raise CeilingReached(
            "newAddresses", f"You may add {row['most_by_user']} new e-mail addresses a day."
        )
    if row["in_workspace"] + new > row["most_in_workspace"]:
        raise CeilingReached(
            "newAddressesInWorkspace",
            f"The workspace may add {row['most_in_workspace']} new e-mail addresses a day.",
        )
