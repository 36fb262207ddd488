"""Says who may decide about a call, and whether one of them was told of it (SPEC §27, §28)."""

from typing import Final

from pipedai.sql import Row
from triggers.approval_rules import APPROVER_ROLES

_RANK: Final = f"array_position(ARRAY{list(APPROVER_ROLES)}, {{}}::text)"
# Whether the user `u` may decide about the approval `a`.
_MAY_DECIDE: Final = f"""u.is_active AND NOT u.id = ANY(a.barred) AND EXISTS (
    SELECT FROM membership m WHERE m.user_id = u.id AND m.environment_id = a.environment_id
        AND {_RANK.format("m.role")} >= {_RANK.format("a.role")})"""

# Whoever reads a channel's URL, or an address that is no user's, may be somebody who may decide.
_IS_TOLD: Final = f"""EXISTS (
    SELECT FROM notice n
    WHERE n.approval_id = a.id AND n.environment_id = a.environment_id AND n.status <> 'dead' AND NOT EXISTS (
        SELECT FROM user_account u WHERE u.email = n.address AND NOT ({_MAY_DECIDE}))) AS decider_is_told"""  # noqa: S608
# The columns about one approval `a` from which `untold` works.
DECIDERS: Final = f"""
EXISTS (
    SELECT FROM membership o JOIN user_account u ON u.id = o.user_id
    WHERE o.environment_id = a.environment_id AND {_MAY_DECIDE}) AS has_decider,
{_IS_TOLD}"""

# The active members of an environment that have each role or a higher one. A statement about many approvals reads the
# members once by this, and not once for each approval.
MEMBERS_OF_ROLES: Final = f"""
SELECT needed.role, array_agg(m.user_id) AS ids
FROM unnest(ARRAY{list(APPROVER_ROLES)}) needed (role)
JOIN membership m ON m.environment_id = %(environment_id)s AND {_RANK.format("m.role")} >= {_RANK.format("needed.role")}
JOIN user_account u ON u.id = m.user_id AND u.is_active
GROUP BY needed.role"""  # noqa: S608
# The same columns as DECIDERS, where `able` is the approval's row of MEMBERS_OF_ROLES, or NULL if it has none.
DECIDERS_OF_MANY: Final = f"""
coalesce(NOT able.ids <@ a.barred, false) AS has_decider,
{_IS_TOLD}"""

NOBODY_MAY_DECIDE: Final = "nobody_may_decide"
NOBODY_TOLD: Final = "nobody_told"


def untold(row: Row) -> tuple[str, str, str] | None:
    """Returns why nobody will decide unless somebody acts, from a row with the columns of DECIDERS: a code, and what is
    wrong and what to do as sentences. Returns None if somebody who may decide was told.
    """
    if not row["has_decider"]:
        return (
            NOBODY_MAY_DECIDE,
            "No member may decide: nobody else has the role, or notRequester bars them.",
            "Give the role to somebody else, or invite them.",
        )
    if not row["decider_is_told"]:
        return (
            NOBODY_TOLD,
            "No channel has told anybody who may decide.",
            "Give the confirmed address of somebody who may decide to a channel that tells of such calls.",
        )
    return None
