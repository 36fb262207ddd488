"""Settles at the start what a killed worker left: programs, files, outcomes and claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipedai_worker import orphans, scratch
from pipedai_worker.answers import Refused
from pipedai_worker.api import Api
from pipedai_worker.journal import CLAIMED, HeldRun, Journal
from pipedai_worker.logs import get_logger
from pipedai_worker.outcome import FAILED, INFRA, Outcome
from pipedai_worker.patience import until_answered
from pipedai_worker.reporting import report

log = get_logger(__name__)

RESTARTED = Outcome(FAILED, INFRA, error_message="worker restarted")


def clean_up(journal: Journal) -> dict[str, HeldRun]:
    """End orphans, remove their files, and spool an outcome for each run that was claimed.

    This needs no API. It returns the runs whose claim was never answered, because only the API knows
    whether it granted the claim.
    """
    unanswered = {}
    spooled = journal.outcomes()
    for run in journal.held():
        orphans.end_orphans(run)
        if run.scratch:
            scratch.remove(Path(run.scratch))
        if run.run_id not in spooled and run.phase != CLAIMED:
            unanswered[run.run_id] = run
            continue
        if run.run_id not in spooled:
            log.warning("run %s was in hand when the worker stopped", run.run_id)
            journal.put_outcome(run.run_id, RESTARTED.body())
        journal.release(run.run_id)
    return unanswered


def settle_claim(api: Api, journal: Journal, run: HeldRun, wait: Callable[[float], bool]) -> None:
    """Repeat an unanswered claim. If it is granted, report the run as failed, since its secrets are gone.

    Raises GaveUp and TokenRefused.
    """
    try:
        until_answered(lambda: api.claim(run.run_id, run.claim_id), wait)
    except Refused:
        journal.release(run.run_id)
        return
    log.warning("run %s had been claimed when the worker stopped", run.run_id)
    body = RESTARTED.body()
    journal.put_outcome(run.run_id, body)
    journal.release(run.run_id)
    report(api, journal, run.run_id, body, wait)
