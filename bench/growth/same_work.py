"""Gives the scheduler the same work in a ledger of any size: a number of due triggers and of expired leases."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from bench.failure import BenchFailed
from pipedai.events import SYSTEM
from pipedai.sql import database_now
from triggers.models import Run, Trigger
from triggers.runs import lifecycle
from triggers.states import Source

DUE = 100
LOST = 20

# For how long no other trigger comes due and no other lease expires.
_LONG = timedelta(days=30)


@transaction.atomic
def prepare(*, without_worker: UUID) -> datetime:
    """Prepare LOST runs whose leases expire (they are retried and send a webhook) and DUE other triggers with one tick.

    Returns the moment at which all of this is due. None of the triggers is of the worker `without_worker`. Raises
    BenchFailed if the ledger has too few.
    """
    now = database_now().replace(second=0, microsecond=0)
    Run.objects.filter(slot__isnull=False).update(
        lease_expires_at=now + _LONG, deadline_at=now + _LONG
    )
    Trigger.objects.filter(next_run_at__isnull=False).update(next_run_at=now + _LONG)
    free = Trigger.objects.filter(enabled=True, deleted_at__isnull=True).exclude(
        id__in=Run.objects.filter(ended_at__isnull=True).values("trigger_id")
    )
    ids = list(
        free.filter(worker__isnull=False)
        .exclude(worker_id=without_worker)
        .order_by("id")
        .values_list("id", flat=True)[: LOST + DUE]
    )
    if len(ids) < LOST + DUE:
        raise BenchFailed("The ledger has too few triggers.")
    lost = Trigger.objects.filter(id__in=ids[:LOST])
    lost.update(max_retries=1, timeout_seconds=3600, webhook_url="https://hooks.example/growth")
    for trigger_id, worker_id in lost.values_list("id", "worker_id"):
        _hold(trigger_id, worker_id)
    Trigger.objects.filter(id__in=ids[LOST:]).update(
        schedule="* * * * *", timezone="UTC", overlap_policy="skip", next_run_at=now
    )
    return now


def _hold(trigger_id: UUID, worker_id: UUID) -> None:
    run = lifecycle.queue_run(trigger_id=trigger_id, source=Source.API, actor=SYSTEM)
    lifecycle.claim_run(
        worker_id=worker_id,
        run_id=run["id"],
        claim_id=None,
        capacity=LOST,
        approved=True,
        actor=SYSTEM,
    )
    lifecycle.start_run(worker_id=worker_id, run_id=run["id"], actor=SYSTEM)
