"""Shows who was told of incidents and of calls to decide about: the last notice to each receiver (SPEC §28)."""

from collections import defaultdict
from collections.abc import Collection
from typing import Final
from uuid import UUID

from pipedai.sql import Row, fetch_all

# Receivers are looked for among so many of an incident's newest notices. Eight notices tell one receiver of an incident
# and its reminders.
_MOST: Final = 100

_TOLD: Final = f"""
SELECT DISTINCT ON (i.id, n.channel_id, n.address) i.id AS told_of, n.channel_id, c.name AS channel_name, c.kind,
    n.address, n.event, n.status, n.created_at, n.delivered_at
FROM unnest(%(ids)s::uuid[]) AS i (id)
CROSS JOIN LATERAL (
    (SELECT * FROM notice WHERE incident_id = i.id ORDER BY created_at DESC LIMIT {_MOST})
    UNION ALL
    (SELECT * FROM notice WHERE approval_id = i.id ORDER BY created_at DESC LIMIT {_MOST})) n
JOIN channel c ON c.id = n.channel_id
ORDER BY i.id, n.channel_id, n.address, n.created_at DESC, n.id DESC
"""  # noqa: S608


def told_of(ids: Collection[UUID]) -> dict[UUID, list[Row]]:
    """Returns for each incident or approval who was told of it, as rows for ToldSerializer. It takes one query."""
    told: dict[UUID, list[Row]] = defaultdict(list)
    for row in fetch_all(_TOLD, {"ids": list(ids)}):
        told[row["told_of"]].append({**row, "email": row["address"] or None})
    return told
