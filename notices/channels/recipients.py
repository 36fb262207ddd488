"""Says which addresses get the notices of an environment (SPEC §14).

An address gets them if it belongs to a member of the environment who has proved it and named it themselves, or if its
owner has confirmed that they want them. An address whose owner has refused them gets none.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Final
from uuid import UUID

from accounts.proof import proof_counts
from pipedai.sql import Row, fetch_all


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
    # The address gets no notices: no member has it, or the member has not proved it, and its owner was never asked.
    UNKNOWN = "unknown"

    @property
    def gets_mail(self) -> bool:
        return self in (Standing.MEMBER, Standing.CONFIRMED)


def standing_columns(environment: str, address: str) -> str:
    """Returns the SQL of the columns that `standing_of` reads. `environment` is an SQL expression for an environment's
    id, and `address` one for an address in lower case.

    A member's address that has no row in `asked_address` was put into a channel before members were asked.
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
    params = {
        "environments": [environment_id for environment_id, _ in wanted],
        "addresses": [address for _, address in wanted],
    }
    rows = fetch_all(_STANDINGS, params)
    return {(row["environment_id"], row["address"]): standing_of(row) for row in rows}
