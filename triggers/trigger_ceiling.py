"""Refuses a trigger if the environment, or the creator of its workspace, has as many as allowed (SPEC §4, §19)."""

from uuid import UUID

from django.conf import settings

from pipedai.api.errors import CeilingReached
from pipedai.sql import execute, fetch_one
from triggers.models import Trigger
from workspaces.locks import check_ceiling

# Requests that create triggers in the workspaces of one user run one after another by this advisory lock, so that two
# at once can't both create the last trigger that is allowed. Locking the user's row instead could deadlock: each
# request holds a FOR SHARE lock on the row of its caller, who may be that user. Two requests that share such a lock
# would each wait for the other before they could lock the row alone.
_TAKE_TURNS = """
SELECT pg_advisory_xact_lock(hashtextextended('triggers of ' || w.created_by_id, 0))
FROM environment e JOIN workspace w ON w.id = e.workspace_id WHERE e.id = %(environment_id)s
"""
_COUNT = """
SELECT count(*) AS number FROM (
    SELECT FROM environment here
    JOIN workspace this ON this.id = here.workspace_id
    JOIN workspace w ON w.created_by_id = this.created_by_id
    JOIN environment e ON e.workspace_id = w.id
    JOIN trigger t ON t.environment_id = e.id AND t.deleted_at IS NULL
    WHERE here.id = %(environment_id)s LIMIT %(limit)s) t
"""


def check_room_for_trigger(environment_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many triggers as it may, or all workspaces of its workspace's
    creator together. The environment is locked. Others who count for the same creator wait.
    """
    live = Trigger.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    limit = settings.MAX_TRIGGERS_PER_ENVIRONMENT
    check_ceiling("triggers", "triggers", held=live.count(), limit=limit)
    limit = settings.MAX_TRIGGERS_PER_CREATOR
    params = {"environment_id": environment_id, "limit": limit}
    execute(_TAKE_TURNS, params)
    row = fetch_one(_COUNT, params)
    assert row is not None
    if row["number"] >= limit:
        raise CeilingReached(
            "triggersOfCreator",
            f"The workspaces of this one's creator have {limit} triggers, as many as they may.",
        )
