"""The locks with which a change in an environment begins; docs/architecture.md has their order.

While a request waits for a lock its caller may lose their role, so `hold_role` reads it again under the lock.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import Model, QuerySet

from accounts.sessions import session_ended
from pipedai.api.authentication import bad_token
from pipedai.api.errors import Forbidden, Invalid, NotFound, or_not_found
from pipedai.events import Actor, is_rehearsal, once
from pipedai.sql import fetch_all, fetch_one
from workspaces.access import visible_workspaces
from workspaces.ceilings import PROFILE, most
from workspaces.models import Workspace
from workspaces.roles import HOST_ROLE, Role, check_includes

M = TypeVar("M", bound=Model)

# The statement locks the membership, because some actions lock the environment in a way that still lets members change.
# It also locks the user, because deactivating a user locks no environment.
_HOLD_MEMBER = """
SELECT m.role, u.is_active FROM membership m JOIN user_account u ON u.id = m.user_id
WHERE m.environment_id = %(environment_id)s AND m.user_id = %(user_id)s
FOR SHARE
"""
_HOLD_KEY = """
SELECT coalesce(role, %(host_role)s) AS role FROM api_key
WHERE id = %(key_id)s AND environment_id = %(environment_id)s AND kind IN ('pwk', 'hos') AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > statement_timestamp())
FOR SHARE
"""
# Only one membership is locked, even if the user owns several environments of the workspace, because owning one of them
# gives the right.
_HOLD_OWNED = """
SELECT FROM membership m JOIN environment e ON e.id = m.environment_id
WHERE e.workspace_id = %(workspace_id)s AND e.deleted_at IS NULL AND m.user_id = %(user_id)s AND m.role = 'owner'
LIMIT 1
FOR KEY SHARE OF e FOR SHARE OF m
"""
_HOLD_POOLS = """
SELECT id FROM pool
WHERE environment_id = %(environment_id)s AND id = ANY(%(pool_ids)s) AND deleted_at IS NULL
ORDER BY id FOR KEY SHARE
"""


def hold_environment(environment_id: UUID) -> None:
    """Locks the environment so that nobody marks it as deleted, which no foreign key prevents. Raises NotFound."""
    _lock(environment_id, "FOR KEY SHARE")


def lock_environment(environment_id: UUID) -> None:
    """Locks the environment so that only one such caller at a time counts, adds or removes rows whose number is
    limited. Plain inserts don't wait. Raises NotFound if the environment has been deleted.
    """
    _lock(environment_id, "FOR NO KEY UPDATE")


def close_environment(environment_id: UUID) -> None:
    """Locks the environment for its deletion, and waits for everybody who holds a lock on it. Raises NotFound."""
    _lock(environment_id, "FOR UPDATE")


def hold_role(actor: Actor, environment_id: UUID, needs: Role) -> Role:
    """Returns the actor's role, and locks it. The caller has locked the environment. Staff, the system and the actor of
    a rehearsal may do everything. Raises NotFound for a user who is no member, Forbidden below `needs`, and
    Unauthenticated for a revoked key or a deactivated user.
    """
    if actor.type in ("staff", "system") or is_rehearsal():
        return Role.OWNER
    hold = hold_role_of_user if actor.type == "user" else _hold_role_of_key
    held = ("role", actor.id, environment_id, needs)
    return once(held, lambda: hold(actor.id, environment_id, needs))


@contextmanager
def changing(
    environment_id: UUID, actor: Actor, needs: Role = Role.ADMIN, *, alone: bool = False
) -> Iterator[Role]:
    """Wraps a change of an environment's rows in one transaction. It locks the environment (`alone` if the change
    counts limited rows) and then the actor's role, which it gives. Raises NotFound, and the errors of `hold_role`.
    """
    with transaction.atomic():
        (lock_environment if alone else hold_environment)(environment_id)
        yield hold_role(actor, environment_id, needs)


def _hold_role_of_key(key_id: UUID | None, environment_id: UUID, needs: Role) -> Role:
    row = fetch_one(
        _HOLD_KEY,
        {"key_id": key_id, "environment_id": environment_id, "host_role": HOST_ROLE.value},
    )
    if row is None:
        raise bad_token()
    return check_includes(Role(row["role"]), needs)


def hold_role_of_user(user_id: UUID | None, environment_id: UUID, needs: Role) -> Role:
    """Does for a user what `hold_role` does for any actor. Raises NotFound, Forbidden, Unauthenticated."""
    row = or_not_found(
        fetch_one(_HOLD_MEMBER, {"user_id": user_id, "environment_id": environment_id})
    )
    if not row["is_active"]:
        raise session_ended()
    return check_includes(Role(row["role"]), needs)


def lock_row(
    rows: QuerySet[M], actor: Actor, *, environment_id: UUID | None = None, no_key: bool = True
) -> M:
    """Locks the environment of the only row in `rows`, the actor's role as an admin, and then the row, and returns it.
    With `no_key` false it also waits for transactions that add a reference to the row. It reads the environment's id
    unless the caller gives it. Raises NotFound, and the errors of `hold_role`.
    """
    environment_id = environment_id or or_not_found(
        rows.values_list("environment_id", flat=True).first()
    )
    hold_environment(environment_id)
    hold_role(actor, environment_id, Role.ADMIN)
    return or_not_found(rows.select_for_update(no_key=no_key).first())


def hold_right_to_create_in(workspace_id: UUID, user_id: UUID) -> None:
    """Makes sure, until the transaction ends, that the user created the workspace or owns one of its environments.
    Raises NotFound for a workspace that the user may not see, Forbidden for other users.
    """
    held = fetch_one(_HOLD_OWNED, {"workspace_id": workspace_id, "user_id": user_id})
    workspace = or_not_found(visible_workspaces(user_id).filter(id=workspace_id).first())
    if held is None and workspace.created_by_id != user_id:
        raise Forbidden("Only the workspace's creator and its owners may do this.")


def hold_pools(environment_id: UUID, pool_ids: Iterable[UUID]) -> list[UUID]:
    """Returns, sorted, those of the ids that are pools of the environment, and keeps these from being deleted. The
    caller has locked the environment first, and also every worker that it needs.
    """
    ids = sorted(pool_ids)
    params = {"environment_id": environment_id, "pool_ids": ids}
    rows = once(("pools", environment_id, *ids), lambda: fetch_all(_HOLD_POOLS, params))
    return [row["id"] for row in rows]


def checked_pools(environment_id: UUID, pool_ids: Sequence[UUID] | None) -> list[UUID] | None:
    """Returns the ids of the pools that a worker is to join, or None if there are none, and keeps the pools as
    `hold_pools` does. Raises Invalid if the environment lacks one of them, or there are too many.
    """
    if not pool_ids:
        return None
    if len(pool_ids) > PROFILE["poolsOfWorker"]:
        workspace = Workspace.objects.get(environments=environment_id)
        if len(pool_ids) > (limit := most("poolsOfWorker", workspace.ceilings)):
            raise Invalid({"poolIds": [f"A machine is in at most {limit} pools."]})
    if hold_pools(environment_id, pool_ids) != sorted(pool_ids):
        raise Invalid({"poolIds": ["One of the ids is no pool of this environment."]})
    return list(pool_ids)


def pool_metadata(pool_ids: Sequence[UUID] | None) -> dict[str, list[str]]:
    """Returns what an audit row says about the pools that a worker joins or is to join: nothing if there are none."""
    return {"poolIds": [str(pool_id) for pool_id in pool_ids]} if pool_ids else {}


def _lock(environment_id: UUID, strength: str) -> None:
    """Locks an environment. Changes made together lock it once. The first of them must therefore lock it alone."""
    statement = "SELECT id FROM environment WHERE id = %(id)s AND deleted_at IS NULL "
    statement += "" if is_rehearsal() else strength
    params = {"id": environment_id}
    if once(("environment", environment_id), lambda: fetch_one(statement, params)) is None:
        raise NotFound
