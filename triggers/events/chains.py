"""Decides in the scheduler what the ends of runs start: the runs of triggers that listen to other triggers (SPEC §25).

The end of a run writes an event in its own transaction (`triggers.runs.ending`), so no end is lost. An event is locked
while it is decided, so none is decided twice.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.sql import fetch_all
from triggers.events.deciding import decide
from triggers.models import Event

# Picks the events that are decided next, the oldest of each workspace, so that no workspace waits for another's. The
# recursive query finds the environments that have some, with one look at the index `event_undecided` for each. If so
# many workspaces have some that one event of each is enough, the query reads only the first of each environment.
_UNDECIDED = """
WITH RECURSIVE waiting (environment_id) AS (
    (SELECT environment_id FROM event WHERE decided_at IS NULL ORDER BY environment_id LIMIT 1)
    UNION ALL
    SELECT (SELECT environment_id FROM event WHERE decided_at IS NULL AND environment_id > waiting.environment_id
        ORDER BY environment_id LIMIT 1)
    FROM waiting WHERE waiting.environment_id IS NOT NULL),
named AS MATERIALIZED (SELECT e.id, e.workspace_id FROM waiting JOIN environment e ON e.id = waiting.environment_id),
share AS (SELECT CASE WHEN count(DISTINCT workspace_id) < %(limit)s THEN %(limit)s ELSE 1 END AS most FROM named),
queue AS (
    SELECT oldest.*, row_number() OVER (PARTITION BY e.workspace_id ORDER BY oldest.received_at, oldest.id) AS position
    FROM named e CROSS JOIN LATERAL (
        SELECT id, received_at FROM event WHERE decided_at IS NULL AND environment_id = e.id
        ORDER BY received_at, id LIMIT (SELECT most FROM share)) oldest)
SELECT id FROM queue ORDER BY position, received_at LIMIT %(limit)s
"""


def decide_ends(*, limit: int = 20, now: datetime | None = None) -> int:
    """Decides up to `limit` events, each in a transaction of its own, and returns how many. If one fails, the others
    are decided nevertheless, and then the error is raised.
    """
    ids = [row["id"] for row in fetch_all(_UNDECIDED, {"limit": limit})]
    number, failed = 0, None
    for event_id in ids:
        try:
            number += _decide(event_id, now)
        except Exception as error:
            failed = error
    if failed is not None:
        raise failed
    return number


def _decide(event_id: UUID, now: datetime | None) -> bool:
    """Returns whether it decided the event. Another scheduler may have done so, or may be doing so."""
    with transaction.atomic():
        event = (
            Event.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("run__trigger", "run__result")
            .filter(id=event_id, decided_at__isnull=True)
            .first()
        )
        if event is None:
            return False
        decide(event, now=now)
        Event.objects.filter(id=event_id).update(decided_at=now or Now())
    return True
