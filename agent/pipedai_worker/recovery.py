"""Cleans up, when a worker starts, what a killed one left behind: programs, files, outcomes and claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipedai_worker import orphans, scratch
from pipedai_worker.answers import Refused
from pipedai_worker.api import Api
from pipedai_worker.executors.base import Executor
from pipedai_worker.journal import CLAIMED, HeldRun, Journal
from pipedai_worker.logs import get_logger
from pipedai_worker.outcome import FAILED, INFRA, Outcome
from pipedai_worker.patience import until_answered
from pipedai_worker.reporting import report
from pipedai_worker.tool_calls import ToolCalls

log = get_logger(__name__)

RESTARTED = Outcome(FAILED, INFRA, error_message="worker restarted")


def clean_up(journal: Journal, executor: Executor) -> dict[str, HeldRun]:
    """End the processes of earlier runs, remove their files, and write an outcome to disk for each claimed run.

    The outcome tells which tool calls the run had made, and which of them had no answer.

    This sends nothing to the API. It returns the runs whose claim was never answered, because only the API knows
    whether it granted the claim.
    """
    unanswered = {}
    spooled = journal.outcomes()
    for run in journal.held():
        orphans.end_orphans(run)
        if run.scratch:
            executor.clean_up(run.claim_id, scratch.work(Path(run.scratch)), run.pid)
            scratch.remove(Path(run.scratch))
        if run.run_id not in spooled and run.phase != CLAIMED:
            unanswered[run.run_id] = run
            continue
        if run.run_id not in spooled:
            log.warning("run %s was in hand when the worker stopped", run.run_id)
            journal.put_outcome(run.run_id, _restarted(journal, run).body())
        journal.release(run.run_id)
    journal.sweep()
    return unanswered


def _restarted(journal: Journal, run: HeldRun) -> Outcome:
    path = journal.calls_of(run.run_id)
    if not path.exists():
        return RESTARTED
    try:
        calls = ToolCalls.read(path)
    except OSError as error:
        log.warning("the tool calls of run %s can't be read: %s", run.run_id, error.strerror)
        return RESTARTED
    return replace(RESTARTED, tool_calls=calls.counts(), tool_call_list=calls.listed())


def settle_claim(api: Api, journal: Journal, run: HeldRun, wait: Callable[[float], bool]) -> None:
    """Repeat an unanswered claim. If it is granted, report the run as failed, because its secrets were never on disk.

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
