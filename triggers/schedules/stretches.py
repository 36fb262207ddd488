"""Ticks of triggers without a worker: one row for a whole stretch of them, as for missed ones (SPEC §19).

The first tick of a stretch makes its row and its audit row. Each that follows it directly moves the row's
`last_tick_at` and counts in its `missed_count`. The stretch ends when a tick is decided otherwise, or when ticks are
left out, as while the trigger is disabled.
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

# Sent with `count`, once the transaction that lengthened so many stretches is committed: no audit row tells of that.
lengthened = Signal()

# Nobody else decides ticks of these triggers meanwhile, since the caller has locked them.
_LAST = """
SELECT last.* FROM unnest(%(trigger_ids)s::uuid[]) AS due (trigger_id) CROSS JOIN LATERAL (
    SELECT id, trigger_id, tick_at, last_tick_at, decision FROM tick
    WHERE trigger_id = due.trigger_id ORDER BY tick_at DESC LIMIT 1) last
WHERE last.decision = %(decision)s
"""

# A row of the release before counts 0 for its one tick. A row that was pruned meanwhile is not there any more.
_LENGTHEN = """
UPDATE tick t SET last_tick_at = longer.tick_at, missed_count = greatest(t.missed_count, 1) + 1
FROM unnest(%(ids)s::uuid[], %(ticks)s::timestamptz[]) AS longer (id, tick_at)
WHERE t.id = longer.id AND t.last_tick_at < longer.tick_at
RETURNING t.trigger_id
"""


def join_stretches(ticks: Mapping[UUID, tuple[cron.Schedule, datetime]]) -> set[UUID]:
    """Counts each trigger's tick in the stretch that it follows directly; the triggers for which that was done.

    Ticks of the others need a row of their own. Call it in the transaction that has locked the triggers.
    """
    if not ticks:
        return set()
    params = {"trigger_ids": list(ticks), "decision": Decision.SKIPPED_NO_WORKER.value}
    joined, followed = set(), {}
    for stretch in fetch_all(_LAST, params):
        schedule, tick = ticks[stretch["trigger_id"]]
        if stretch["tick_at"] <= tick <= stretch["last_tick_at"]:
            # It is counted already: the database's clock was put back.
            joined.add(stretch["trigger_id"])
        elif schedule.next_after(stretch["last_tick_at"]) == tick:
            followed[stretch["id"]] = tick
    if followed:
        params = {"ids": list(followed), "ticks": list(followed.values())}
        longer = {row["trigger_id"] for row in fetch_all(_LENGTHEN, params)}
        transaction.on_commit(partial(lengthened.send, sender=Tick, count=len(longer)), robust=True)
        joined |= longer
    return joined
