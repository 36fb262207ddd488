"""Keeps one row for a stretch: ticks that follow each other while their trigger has no worker or is paused (SPEC §16,
§19).

The first tick makes the row and an audit row; later ones move `last_tick_at` and add to `missed_count`. A stretch ends
with another decision, or with ticks about which nobody decided.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

from pipedai.sql import fetch_all
from triggers.models import Tick
from triggers.schedules.due_times import DueTimes
from triggers.states import Decision

# This signal tells which decisions (`decisions`) lengthened stretches in a transaction, after its commit. The metrics
# need it, because lengthening a stretch emits no event.
lengthened = Signal()


class Continuation(NamedTuple):
    due_times: DueTimes
    tick: datetime
    decision: Decision


# Reads the latest tick of each trigger if it was decided in the same way. The caller has locked the triggers, so no
# other scheduler can add a tick meanwhile.
_LAST = """
SELECT last.* FROM unnest(%(trigger_ids)s::uuid[], %(decisions)s::text[]) AS due (trigger_id, decision)
CROSS JOIN LATERAL (
    SELECT id, trigger_id, tick_at, last_tick_at, decision FROM tick
    WHERE trigger_id = due.trigger_id ORDER BY tick_at DESC LIMIT 1) last
WHERE last.decision = due.decision
"""

# Adds a tick to each stretch's row. A row that was pruned meanwhile is not returned.
_LENGTHEN = """
UPDATE tick t SET last_tick_at = longer.tick_at, missed_count = t.missed_count + 1
FROM unnest(%(ids)s::uuid[], %(ticks)s::timestamptz[]) AS longer (id, tick_at)
WHERE t.id = longer.id AND t.last_tick_at < longer.tick_at
RETURNING t.trigger_id, t.decision
"""


def join_stretches(ticks: Mapping[UUID, Continuation]) -> set[UUID]:
    """Adds each trigger's tick to the stretch that it continues, and returns these triggers. All other ticks need a row
    of their own. The caller has locked the triggers.
    """
    if not ticks:
        return set()
    decisions = [each.decision.value for each in ticks.values()]
    params = {"trigger_ids": list(ticks), "decisions": decisions}
    joined, followed = set(), {}
    for stretch in fetch_all(_LAST, params):
        due_times, tick, _ = ticks[stretch["trigger_id"]]
        if stretch["tick_at"] <= tick <= stretch["last_tick_at"]:
            # The stretch's row counts this tick already. That happens when the database's clock was put back.
            joined.add(stretch["trigger_id"])
        elif due_times.next_after(stretch["last_tick_at"]) == tick:
            followed[stretch["id"]] = tick
    if followed:
        params = {"ids": list(followed), "ticks": list(followed.values())}
        longer = fetch_all(_LENGTHEN, params)
        tell = partial(lengthened.send, sender=Tick, decisions=[row["decision"] for row in longer])
        transaction.on_commit(tell, robust=True)
        joined |= {row["trigger_id"] for row in longer}
    return joined
