"""Claims the next run for a worker: the poll and the claim in one (SPEC §21)."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from pipedai.events import Actor
from pipedai.sql import Row
from triggers.runs import lifecycle
from triggers.runs.conditions import Limits
from triggers.runs.handout import MOST_TRIES, HandedOut, choose_runs, read_claimed
from triggers.runs.offers import Offers
from triggers.runs.receivers import note_receiver
from triggers.runs.refusals import Refused
from triggers.states import HELD, Status


class Next(NamedTuple):
    """The run that the worker claimed, with all that a claim answers, or None. `was_late`: others took the runs."""

    run: HandedOut | None
    was_late: bool = False


def claim_next_run(
    *,
    worker_id: UUID,
    claim_id: str,
    start: bool,
    limits: Limits,
    lock_worker: Callable[[], Limits],
    has_pools: bool,
    actor: Actor,
    offers: Offers | None = None,
    now: datetime | None = None,
) -> Next:
    """Claims the first run that `hand_out_runs` would return, and with `start` starts it. If the worker holds a run
    that it claimed with this `claim_id`, it gets that one again, so a call whose answer was lost can be repeated; the
    claim's UPDATE checks that under the worker's lock. `lock_worker` takes this lock and returns the worker's limits;
    it is not called if there is no run. `offers` is as for `hand_out_runs`.
    """
    for _ in range(MOST_TRIES):
        chosen = choose_runs(
            worker_id=worker_id,
            **limits,
            has_pools=has_pools,
            only_first=True,
            offers=offers,
            now=now,
        )
        run = None
        if chosen:
            run = _take(chosen[0], worker_id, claim_id, start, lock_worker, actor, now)
        # Nothing may have been there or taken because this is a repeated call.
        run = run or _claimed_before(worker_id, claim_id, start, limits, actor, now)
        if run is not None or not chosen:
            return Next(run)
    return Next(None, was_late=True)


def _take(
    due: HandedOut,
    worker_id: UUID,
    claim_id: str,
    start: bool,
    lock_worker: Callable[[], Limits],
    actor: Actor,
    now: datetime | None,
) -> HandedOut | None:
    """Claims the run, and notes who receives its headers. Returns None if it can't be claimed any more."""
    with suppress(Refused), transaction.atomic():
        is_limited = due.row["free_in_trigger"] is not None
        claimed = lifecycle.take_run(
            worker_id=worker_id,
            run_id=due.row["id"],
            claim_id=claim_id,
            start=start,
            **lock_worker(),
            actor=actor,
            limited_trigger=due.row["trigger_id"] if is_limited else None,
            once=True,
            then=lambda: note_receiver([due.row], worker_id=worker_id, actor=actor),
            now=now,
        )
        if claimed is not None:
            return _with_cap(claimed["max_cost_usd"], claimed, due)
    return None


def _claimed_before(
    worker_id: UUID,
    claim_id: str,
    start: bool,
    limits: Limits,
    actor: Actor,
    now: datetime | None,
) -> HandedOut | None:
    """Returns the run that the worker holds by this `claim_id`, started if `start`; None if there is none."""
    held = read_claimed(
        worker_id=worker_id,
        claim_id=claim_id,
        approved=limits["approved"],
        takes_approvals=limits.get("takes_approvals", False),
        now=now,
    )
    if held is None:
        return None
    run = lifecycle.read_own_run(held.row["id"], worker_id, now)
    cap = run["max_cost_usd"]
    if start and run["status"] == Status.CLAIMED:
        try:
            run = lifecycle.start_run(worker_id=worker_id, run_id=run["id"], actor=actor, now=now)
        except Refused as refused:
            run = {"status": refused.extra["status"]}
    # The run may have ended since it was read. Then the worker does not hold it any more.
    if run["status"] not in HELD:
        return None
    note_receiver([held.row], worker_id=worker_id, actor=actor)
    return _with_cap(cap, run, held)


def _with_cap(cap: Decimal | None, claimed: Row, due: HandedOut) -> HandedOut:
    return HandedOut({**claimed, **due.row, "max_cost_usd": cap}, due.mcp_headers)
