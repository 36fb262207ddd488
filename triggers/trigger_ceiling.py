"""Whether there is room for one more trigger: in its environment, and for the workspace's creator (SPEC §4, §19)."""

from uuid import UUID

from django.conf import settings

from pipedai.api.errors import CeilingReached
from pipedai.sql import execute, fetch_one
from triggers.models import Trigger
from workspaces.ceilings import check_ceiling

# Two that are created at once in different environments must not both be the last. It is no lock on the creator's row:
# whoever acts shares their own row's, and may be the creator, and two who share a lock can't both have more of it.
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
    """Raises CeilingReached where one more would be one too many. Call it with the environment's row locked; until the
    transaction ends, nobody else counts what the creator has.
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
