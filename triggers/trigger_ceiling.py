"""Refuses a trigger if the environment, or the creator of its workspace, has as many as allowed (SPEC §4, §19)."""

from uuid import UUID

from pipedai.api.errors import CeilingReached
from pipedai.events import is_rehearsal, once
from pipedai.sql import execute, fetch_row
from triggers.models import Trigger
from workspaces.ceilings import PROFILE, Room, check_ceiling

# Requests that create triggers in the workspaces of one user run one after another by this advisory lock, so that two
# at once can't both create the last trigger that is allowed. Locking the user's row instead could deadlock: each
# request holds a FOR SHARE lock on the row of its caller, who may be that user. Two requests that share such a lock
# would each wait for the other before they could lock the row alone.
_TAKE_TURNS = """
SELECT pg_advisory_xact_lock(hashtextextended('triggers of ' || w.created_by_id, 0))
FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s
"""
_COUNT = """
SELECT here.most, counted.number FROM (
    SELECT w.created_by_id, greatest((w.ceilings ->> 'triggersOfCreator')::int, %(limit)s) AS most
    FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s) here,
    LATERAL (SELECT count(*) AS number FROM (
        SELECT FROM workspace w
        JOIN environment e ON e.workspace_id = w.id
        JOIN trigger t ON t.environment_id = e.id AND t.deleted_at IS NULL
        WHERE w.created_by_id = here.created_by_id LIMIT here.most) t) counted
"""


def check_room_for_trigger(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many triggers as it may, or all workspaces of its workspace's
    creator together. The environment is locked. Others who count for the same creator wait.
    """
    live = Trigger.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    check_ceiling("triggers", "triggers", environment_id=environment_id, rows=live)
    room = room_of_creator(environment_id)
    if not room.take():
        raise CeilingReached(
            "triggersOfCreator",
            f"The workspaces of this one's creator have {room.most} triggers, as many as they may.",
        )


def room_of_creator(environment_id: UUID) -> Room:
    params = {"environment_id": environment_id, "limit": PROFILE["triggersOfCreator"]}

    def count() -> Room:
        if not is_rehearsal():
            execute(_TAKE_TURNS, params)
        row = fetch_row(_COUNT, params)
        return Room(row["number"], row["most"])

    return once(("triggersOfCreator", environment_id), count)
