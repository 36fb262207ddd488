"""Makes sure that a caller who acts as admin or owner still has that role when the action commits (SPEC §19).

Between the permission check and the action, a request may wait for a lock. Meanwhile its caller may be removed, demoted
or deactivated, or its key revoked. Each action that needs one of these roles therefore calls `hold_role` right after it
has locked the environment. `hold_role` reads the role again, refuses a caller who has lost the role, and locks the role
until the transaction ends.
"""

from uuid import UUID

from accounts.authentication import session_ended
from pipedai.api.authentication import bad_token
from pipedai.api.errors import Forbidden, NotFound
from pipedai.events import Actor
from pipedai.sql import fetch_one
from workspaces.queries import visible_workspaces
from workspaces.roles import HOST_ROLE, Role, check_includes

MAY_NOT_CREATE = "Only the workspace's creator and its owners may do this."

# The statement locks the membership, because some actions lock the environment in a way that lets others change
# members. It also locks the user, because a deactivation of the user locks no environment.
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


def hold_role(actor: Actor, environment_id: UUID, needs: Role) -> Role:
    """Returns the actor's role in an environment and locks the role until the transaction ends. The caller has locked
    the environment.

    Raises NotFound for a user who is no member any more, Forbidden for a role below `needs`, Unauthenticated for a
    revoked key or a deactivated user. Staff and the system have no role in an environment and may do everything.
    """
    if actor.type in ("staff", "system"):
        return Role.OWNER
    if actor.type == "user":
        return hold_role_of_user(actor.id, environment_id, needs)
    row = fetch_one(
        _HOLD_KEY,
        {"key_id": actor.id, "environment_id": environment_id, "host_role": HOST_ROLE.value},
    )
    if row is None:
        raise bad_token()
    return check_includes(Role(row["role"]), needs)


def hold_role_of_user(user_id: UUID | None, environment_id: UUID, needs: Role) -> Role:
    """Returns a user's role in an environment and locks it, as `hold_role` does for any actor. Raises NotFound,
    Forbidden, Unauthenticated.
    """
    row = fetch_one(_HOLD_MEMBER, {"user_id": user_id, "environment_id": environment_id})
    if row is None:
        raise NotFound
    if not row["is_active"]:
        raise session_ended()
    return check_includes(Role(row["role"]), needs)


def hold_right_to_create_in(workspace_id: UUID, user_id: UUID) -> None:
    """Makes sure that the user may create environments in the workspace, and keeps that so until the transaction ends.

    The creator of the workspace may, and so may an owner of one of its environments; for an owner this locks the
    membership. Raises NotFound for a workspace that the user may not see, Forbidden for other users.
    """
    held = fetch_one(_HOLD_OWNED, {"workspace_id": workspace_id, "user_id": user_id})
    workspace = visible_workspaces(user_id).filter(id=workspace_id).first()
    if workspace is None:
        raise NotFound
    if held is None and workspace.created_by_id != user_id:
        raise Forbidden(MAY_NOT_CREATE)
