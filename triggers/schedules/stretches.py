"""Keeps one row for a stretch: ticks of a trigger without a worker that follow each other directly (SPEC §19).

The first tick of a stretch makes a tick row and an audit row. Each later tick moves `last_tick_at` of that row and adds
1 to its `missed_count`. The stretch ends when a tick is decided otherwise, or when the schedule had ticks in between
that were not decided, for example because the trigger was disabled.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

from pipedai.sql import fetch_all
from triggers.models import Tick
from triggers.schedules import cron
from triggers.states import Decision

# This signal is sent with `count` when a transaction that lengthened so many stretches has committed. Metrics need it,
# because there is no event for a lengthened stretch.
lengthened = Signal()

# Reads the last tick of each trigger. Nobody else can decide a tick meanwhile, because the caller has locked the
# triggers.
_LAST = """
SELECT last.* FROM unnest(%(trigger_ids)s::uuid[]) AS due (trigger_id) CROSS JOIN LATERAL (
    SELECT id, trigger_id, tick_at, last_tick_at, decision FROM tick
    WHERE trigger_id = due.trigger_id ORDER BY tick_at DESC LIMIT 1) last
WHERE last.decision = %(decision)s
"""

# A row of `skipped_no_worker` from before there were stretches counts 0 for its one tick, hence `greatest`. A row that
# was pruned meanwhile is not returned.
_LENGTHEN = """
UPDATE tick t SET last_tick_at = longer.tick_at, missed_count = greatest(t.missed_count, 1) + 1
FROM unnest(%(ids)s::uuid[], %(ticks)s::timestamptz[]) AS longer (id, tick_at)
WHERE t.id = longer.id AND t.last_tick_at < longer.tick_at
RETURNING t.trigger_id
"""


def join_stretches(ticks: Mapping[UUID, tuple[cron.Schedule, datetime]]) -> set[UUID]:
    """Counts each trigger's tick in the stretch that it follows directly. Returns the triggers for which it did so.

    `ticks` has the schedule and the tick of each trigger. The ticks of all other triggers need a row of their own. Call
    it in the transaction that has locked the triggers.
    """
    if not ticks:
        return set()
    params = {"trigger_ids": list(ticks), "decision": Decision.SKIPPED_NO_WORKER.value}
    joined, followed = set(), {}
    for stretch in fetch_all(_LAST, params):
        schedule, tick = ticks[stretch["trigger_id"]]
        if stretch["tick_at"] <= tick <= stretch["last_tick_at"]:
            # The tick is counted already. This happens when the database's clock was put back.
            joined.add(stretch["trigger_id"])
        elif schedule.next_after(stretch["last_tick_at"]) == tick:
            followed[stretch["id"]] = tick
    if followed:
        params = {"ids": list(followed), "ticks": list(followed.values())}
        longer = {row["trigger_id"] for row in fetch_all(_LENGTHEN, params)}
        transaction.on_commit(partial(lengthened.send, sender=Tick, count=len(longer)), robust=True)
        joined |= longer
    return joined
