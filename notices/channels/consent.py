"""Decides which e-mail addresses get an environment's notices, and records the answers of their owners.

An address gets notices if a member has confirmed it and named it as their own, or if its owner has agreed, unless the
owner has refused. The tokens in mails are signed ids, which are stored nowhere. The token of `List-Unsubscribe` also
reaches mail servers, so it can only refuse.
"""

from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.db import transaction
from django.db.models.functions import Now

from accounts.addresses import proof_counts
from accounts.mails import link_to
from accounts.models import User
from notices.models import AskedAddress, RefusedAddress
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all

_ANSWERS: Final = "pipedai.asked-address"
_STOPS: Final = "pipedai.stop-notices"

# A user who has not confirmed their e-mail address can't change an answer that its owner may have given.
_AGREE: Final = """
INSERT INTO asked_address AS a (id, environment_id, address, asked_by)
VALUES (%(id)s, %(environment_id)s, %(address)s, %(user_id)s)
ON CONFLICT (address, environment_id) DO UPDATE SET asked_by = excluded.asked_by, refused_at = NULL
WHERE %(is_proved)s
"""
_LEAVE: Final = """
INSERT INTO asked_address AS a (id, environment_id, address, asked_by, refused_at)
SELECT %(id)s, %(environment_id)s, u.email, u.id, statement_timestamp() FROM user_account u
WHERE u.id = %(user_id)s AND u.is_active AND u.email_verified_at IS NOT NULL
ON CONFLICT (address, environment_id) DO UPDATE SET confirmed_at = NULL, refused_at = excluded.refused_at,
    id = CASE WHEN %(is_removed)s THEN excluded.id ELSE a.id END
"""
# Adds rows for members whose address was put into a channel by a release that did not ask them. Links in mails need the
# ids.
_KEEP: Final = """
INSERT INTO asked_address (id, environment_id, address, asked_by)
SELECT gen_random_uuid(), w.environment_id, w.address, u.id
FROM unnest(%(environments)s::uuid[], %(addresses)s::text[]) w (environment_id, address)
JOIN user_account u ON u.email = w.address AND u.is_active AND u.email_verified_at IS NOT NULL
JOIN membership m ON m.user_id = u.id AND m.environment_id = w.environment_id
WHERE NOT EXISTS (
    SELECT FROM asked_address a WHERE a.address = w.address AND a.environment_id = w.environment_id)
ORDER BY w.address, w.environment_id
ON CONFLICT DO NOTHING
"""


class Standing(StrEnum):
    """Whether an address gets the notices of an environment, and why."""

    # The address gets notices: it is a member's who has named it, or the service requires no proof of addresses.
    MEMBER = "member"
    # The address gets notices, because its owner has confirmed.
    CONFIRMED = "confirmed"
    # The address gets no notices yet: its owner has been asked and has not confirmed.
    ASKED = "asked"
    # The address gets no notices, because its owner has refused those of this environment or all.
    REFUSED = "refused"
    # The address gets no notices: its owner was never asked, and no member has confirmed it as their own.
    UNKNOWN = "unknown"

    @property
    def gets_mail(self) -> bool:
        return self in (Standing.MEMBER, Standing.CONFIRMED)


def standing_columns(environment: str, address: str) -> str:
    """Returns the SQL of the columns that `standing_of` reads. `environment` and `address` are SQL expressions, the
    latter in lower case. A member's address without a row counts as agreed, because an older release put it into a
    channel without asking.
    """
    return f"""
EXISTS (SELECT FROM refused_address r WHERE r.address = {address})
    OR EXISTS (SELECT FROM asked_address a
        WHERE a.address = {address} AND a.environment_id = {environment} AND a.refused_at IS NOT NULL) AS is_refused,
EXISTS (SELECT FROM user_account u JOIN membership m ON m.user_id = u.id
    WHERE u.email = {address} AND m.environment_id = {environment}
        AND u.is_active AND u.email_verified_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM asked_address a WHERE a.address = {address}
            AND a.environment_id = {environment} AND a.asked_by <> u.id)) AS is_member,
(SELECT a.confirmed_at IS NOT NULL FROM asked_address a
    WHERE a.address = {address} AND a.environment_id = {environment} AND (a.confirmed_at IS NOT NULL
        OR NOT EXISTS (SELECT FROM user_account u WHERE u.id = a.asked_by AND u.email = a.address))) AS is_confirmed"""  # noqa: S608


_STANDINGS: Final = f"""
SELECT w.environment_id, w.address, {standing_columns("w.environment_id", "w.address")}
FROM unnest(%(environments)s::uuid[], %(addresses)s::text[]) w (environment_id, address)
"""  # noqa: S608


def standing_of(row: Row) -> Standing:
    """Returns the standing of the address of a row with the columns of `standing_columns`."""
    if row["is_refused"]:
        return Standing.REFUSED
    if row["is_member"] or not proof_counts():
        return Standing.MEMBER
    if row["is_confirmed"] is None:
        return Standing.UNKNOWN
    return Standing.CONFIRMED if row["is_confirmed"] else Standing.ASKED


def standings(wanted: Collection[tuple[UUID, str]]) -> dict[tuple[UUID, str], Standing]:
    """Returns the standing of each pair of an environment and an address, in one query at most."""
    if not wanted:
        return {}
    environments, addresses = zip(*wanted, strict=True)
    rows = fetch_all(_STANDINGS, {"environments": list(environments), "addresses": list(addresses)})
    return {(row["environment_id"], row["address"]): standing_of(row) for row in rows}


def token_of(asked_id: UUID) -> str:
    return _signer(_ANSWERS).sign(asked_id.hex)


def link_of(asked_id: UUID) -> str:
    return link_to("notices", token_of(asked_id))


def unsubscribe_headers(asked_id: UUID) -> dict[str, str]:
    """Returns the headers of RFC 8058. The URL is always ours, not the dashboard's, because it must take a POST."""
    token = _signer(_STOPS).sign(asked_id.hex)
    return {
        "List-Unsubscribe": f"<{settings.PUBLIC_URL}/account/notices/stop?token={token}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def agree(environment_id: UUID, user: User) -> None:
    """Records that a user named their own address. If they have confirmed it, this ends an earlier refusal."""
    params = {
        "id": new_id(),
        "environment_id": environment_id,
        "address": user.email,
        "user_id": user.id,
        "is_proved": user.has_proved_email,
    }
    execute(_AGREE, params)
    if user.has_proved_email:
        RefusedAddress.objects.filter(address=user.email).delete()


def leave(environment_id: UUID, user_id: UUID, *, is_removed: bool) -> None:
    """Records that a former member refuses the notices. With `is_removed`, links in earlier mails stop working."""
    params = {
        "id": new_id(),
        "environment_id": environment_id,
        "user_id": user_id,
        "is_removed": is_removed,
    }
    execute(_LEAVE, params)


def keep_consent(members: Collection[tuple[UUID, str]]) -> None:
    """Adds the missing rows for the addresses of members, each given with its environment."""
    if members:
        environments, addresses = zip(*members, strict=True)
        execute(_KEEP, {"environments": list(environments), "addresses": list(addresses)})


def confirm_address(*, token: str, actor: Actor) -> None:
    """Records that the address's owner wants the notices, which ends a refusal. Raises Conflict for a bad token."""
    with transaction.atomic():
        asked = _asked(token, _ANSWERS)
        refused = RefusedAddress.objects.filter(address=asked.address).delete()[0]
        if asked.confirmed_at is None or refused:
            AskedAddress.objects.filter(id=asked.id).update(confirmed_at=Now(), refused_at=None)
            emit(_event("address.confirmed", asked, actor))


def refuse_address(*, token: str, everywhere: bool = True, actor: Actor) -> None:
    """Records that the owner wants no notices, of any environment or of this one. Raises Conflict for a bad token."""
    with transaction.atomic():
        asked = _asked(token, _ANSWERS, locks=not everywhere)
        if not everywhere:
            _refuse_environment(asked, actor)
            return
        # This row is the first that is locked, so that two links of one address, of two environments, can't deadlock.
        _, is_new = RefusedAddress.objects.get_or_create(address=asked.address)
        of_address = AskedAddress.objects.filter(address=asked.address, refused_at__isnull=True)
        of_address.update(confirmed_at=None, refused_at=Now())
        if is_new:
            emit(_event("address.refused", asked, actor, everywhere=True))


def stop_notices(*, token: str, actor: Actor) -> None:
    """Records that the owner refuses the environment's notices. Raises Conflict for a bad token."""
    with transaction.atomic():
        _refuse_environment(_asked(token, _STOPS), actor)


def _refuse_environment(asked: AskedAddress, actor: Actor) -> None:
    row = AskedAddress.objects.filter(id=asked.id, refused_at__isnull=True)
    if row.update(confirmed_at=None, refused_at=Now()):
        emit(_event("address.refused", asked, actor, everywhere=False))


def _asked(token: str, purpose: str, *, locks: bool = True) -> AskedAddress:
    """Returns the row that a token names, and locks it if `locks` is true. Raises Conflict if there is none."""
    rows = AskedAddress.objects.all()
    with suppress(BadSignature, ValueError, AskedAddress.DoesNotExist):
        asked_id = UUID(_signer(purpose).unsign(token))
        return (rows.select_for_update(no_key=True) if locks else rows).get(id=asked_id)
    raise Conflict(
        "The link is not complete, or its e-mail address is not asked any more.",
        code=ErrorCode.LINK_UNUSABLE,
    )


def _signer(purpose: str) -> Signer:
    """Returns a signer that signs with SECRET_KEY, and also accepts signatures of SECRET_KEY_FALLBACKS."""
    return Signer(salt=purpose, sep=".")


def _event(action: str, asked: AskedAddress, actor: Actor, **metadata: bool) -> Event:
    return Event(action, actor, asked.environment_id, "address", asked.id, metadata)
