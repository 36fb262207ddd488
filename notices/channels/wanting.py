"""Says which channels want to tell of what (SPEC §14, §26)."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from notices.channels.announcements import Announcement
from notices.states import ALWAYS, FAILED, RUN_RESULT
from pipedai.sql import NOW, Row, fetch_all
from triggers.events.clauses import first_failing
from triggers.states import FAILURES

# Selects the channels that subscribe to one of the events, and locks them. The second of two transactions waits for the
# lock, and so counts what the first one queued. The order of the ids prevents deadlocks.
_WANTING: Final = f"""
SELECT id, environment_id, kind, emails, host, events, trigger_ids, tells_when::text AS tells_when, {NOW} AS now
FROM channel
WHERE environment_id = ANY(%(environments)s) AND enabled AND deleted_at IS NULL AND events && %(events)s::varchar[]
ORDER BY id FOR NO KEY UPDATE
"""  # noqa: S608


def channels_wanting(
    environments: Iterable[UUID], events: Iterable[str], *, now: datetime | None = None
) -> list[Row]:
    """Returns the channels that subscribe to one of the events, locked until the transaction ends."""
    params = {"environments": list(set(environments)), "events": list(set(events)), "now": now}
    return fetch_all(_WANTING, params)


def wants(channel: Row, announcement: Announcement) -> bool:
    return (
        announcement.environment_id == channel["environment_id"]
        and announcement.event in channel["events"]
        and (announcement.event != RUN_RESULT or _wants_result(channel, announcement))
    )


def _wants_result(channel: Row, announcement: Announcement) -> bool:
    """Returns whether a final outcome is of a trigger that the channel tells of, and fits its `when`."""
    run, when = announcement.about["run"], json.loads(channel["tells_when"])
    if channel["trigger_ids"] is not None and run["triggerId"] not in channel["trigger_ids"]:
        return False
    if when == ALWAYS:
        return True
    if when == FAILED:
        return run["status"] in FAILURES
    return first_failing(when, announcement.document) is None
