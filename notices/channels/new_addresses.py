"""Checks that users may add addresses to channels of mail, and asks the owners of new addresses first (SPEC §14)."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from accounts.addresses import check_proof, proof_counts
from accounts.models import User
from notices.channels.addresses import AskedAddress, RefusedAddress
from notices.channels.announcements import Announcement
from notices.channels.consent import agree
from notices.channels.models import Channel
from notices.channels.queueing import queue_for
from notices.states import CONFIRM
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict
from pipedai.api.throttling import Rate, count_hit
from pipedai.events import Actor, is_rehearsal
from pipedai.sql import Row, database_now, execute, fetch_one
from workspaces.ceilings import PROFILE
from workspaces.models import ApiKey

_NOBODY: Final = (
    "Nobody with a confirmed e-mail address answers for this key: let a user add the addresses."
)

# These locks make requests that add addresses for one user, or in one workspace, wait for each other. Without them two
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


def check_may_mail(addresses: Collection[str], actor: Actor) -> User | None:
    """Raises Conflict if the actor has proved no address of their own. Returns the user who is responsible for the
    mail, or None if no proof is needed, as for the user's own address alone, or in a viewer's plan of files, which the
    system makes and rolls back.
    """
    if not proof_counts() or not addresses or actor.type == "system":
        return None
    user = _user_of(actor)
    if user is None:
        raise Conflict(_NOBODY, code=ErrorCode.EMAIL_UNVERIFIED)
    if not user.has_proved_email and set(addresses) == {user.email}:
        # The user gets no notices before they have proved this address, and an earlier mail has asked them to prove it.
        return None
    check_proof(user)
    return user


def ask_new_addresses(channel: Channel, addresses: Collection[str], actor: Actor) -> None:
    """Queues a mail that asks for consent to each new address, except the actor's own. Call it in the transaction that
    adds the addresses, with the environment locked. Raises Conflict as `check_may_mail` does, and CeilingReached for
    too many in a day. A rehearsal asks nobody, and does not count either, as others count the same mails.
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
                "asksOfAddress", f"An address is asked {rate.limit} times a day at most."
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
    row: Row | None = fetch_one(_COUNT, params)
    assert row is not None
    if row["by_user"] + new > row["most_by_user"]:
        raise CeilingReached(
            "newAddresses", f"You may add {row['most_by_user']} new addresses a day."
        )
    if row["in_workspace"] + new > row["most_in_workspace"]:
        raise CeilingReached(
            "newAddressesInWorkspace",
            f"The workspace may add {row['most_in_workspace']} new addresses a day.",
        )
