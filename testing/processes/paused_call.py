"""Makes one lifecycle call and stops just before its commit, so that a test can kill the process there."""

import os
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.events import SYSTEM, happened
from triggers.runs import lifecycle, reports
from triggers.runs.conditions import Limits
from triggers.runs.handout import claim_next_run
from triggers.runs.outcome import Outcome

PAUSED = b"paused"


def pause_in(verb: str, run_id: UUID, worker_id: UUID, tell: int) -> None:
    """Makes the call and never returns. It writes PAUSED to the file descriptor `tell` when everything is written and
    nothing is committed.
    """

    def pause(**_: Any) -> None:
        os.write(tell, PAUSED)
        time.sleep(600)

    # Our receiver runs after the audit log's. A transition writes all of its rows before it emits its event.
    happened.connect(pause, weak=False)
    _verbs(run_id, worker_id)[verb]()
    raise RuntimeError("nothing happened")


def _verbs(run_id: UUID, worker_id: UUID) -> dict[str, Callable[[], object]]:
    limits = Limits(capacity=9, approved=True)

    broken = Outcome(status="failed", fault_class="infra", error_message="Broken.")

    def claim() -> object:
        with transaction.atomic():
            return lifecycle.claim_run(
                worker_id=worker_id,
                run_id=run_id,
                claim_id="killed",
                **limits,
                actor=SYSTEM,
            )

    def claim_next() -> object:
        return claim_next_run(
            worker_id=worker_id,
            claim_id="killed",
            start=True,
            limits=limits,
            lock_worker=lambda: limits,
            has_pools=False,
            actor=SYSTEM,
        )

    return {
        "claim": claim,
        "claim-next": claim_next,
        "start": lambda: lifecycle.start_run(worker_id=worker_id, run_id=run_id, actor=SYSTEM),
        "complete": lambda: reports.complete_run(
            worker_id=worker_id, run_id=run_id, outcome=broken, reported={}, actor=SYSTEM
        ),
        "cancel": lambda: lifecycle.cancel_run(run_id=run_id, actor=SYSTEM),
        "expire": lifecycle.expire_runs,
    }
