"""Queues thousands of runs at once, for benchmarks that need long queues."""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from pipedai.events import SYSTEM
from testing.world.copies import add_copies
from triggers.models import Run
from triggers.runs import queueing
from triggers.states import Source

# The copies came due one after another before the original, and were opened to its pool in the same order.
_EARLIER = {
    column: f"o.{column} - n * interval '1 millisecond'"
    for column in ("queued_at", "available_at", "pool_from")
}


@transaction.atomic
def add_queued(trigger_id: UUID, count: int, *, also_of: Sequence[UUID] = ()) -> UUID:
    """Queues `count` runs of a trigger that are due, and returns the id of the last in their order. The triggers
    `also_of`, which have the same worker or pool, share the runs.
    """
    run_id: UUID = queueing.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)["id"]
    triggers = [trigger_id, *also_of]
    of = {"trigger_id": f"(%(triggers)s::uuid[])[n %% {len(triggers)} + 1]"} if also_of else {}
    add_copies(Run, run_id, count - 1, {"triggers": triggers}, **_EARLIER, **of)
    return run_id
