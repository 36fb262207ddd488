"""Cleans up, when a worker starts, what a killed one left behind: programs, files, outcomes and claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipedai_worker.api.client import Api
from pipedai_worker.disk import scratch
from pipedai_worker.disk.journal import HeldRun, Journal
from pipedai_worker.disk.sessions import Session, session_of
from pipedai_worker.disk.tool_calls import RecordedCalls, ToolCalls
from pipedai_worker.executors.base import Executor
from pipedai_worker.logs import get_logger
from pipedai_worker.reporting.outcome import FAILED, INFRA, Outcome
from pipedai_worker.reporting.report import report
from pipedai_worker.running import orphans

log = get_logger(__name__)

RESTARTED = Outcome(FAILED, INFRA, error_message="worker restarted")
# The outcome of a run of which no program was started, so it has called no tool and has cost nothing. The API has
# started the run with its claim, so it has to be told.
NEVER_BEGUN = replace(RESTARTED, tool_calls={"total": 0, "effects": 0, "unknown": 0}, cost_usd=0.0)
# The outcome of a run that the API has granted while the worker was told to end, and of one that the worker can't read.
NOT_BEGUN = replace(NEVER_BEGUN, error_message="The worker was stopped before the run began.")
UNREADABLE = replace(NEVER_BEGUN, error_message="The worker can't read this run.")


def clean_up(journal: Journal, executor: Executor) -> None:
    """End the processes of earlier runs, remove their files, and write an outcome to disk for each run in hand.

    The outcome tells which tool calls the run had made, and which of them had no answer. The files of a session stay if
    the run can be resumed in it. This sends nothing to the API.
    """
    spooled = journal.outcomes()
    for run in journal.held():
        orphans.end_orphans(run)
        calls = _calls_of(journal, run)
        session = journal.sessions.of_run(run.run_id)
        if session is not None:
            _leave_session(journal, executor, run, session, calls)
        elif run.scratch:
            session_id, work = session_of(run.claim_id), scratch.work(Path(run.scratch))
            executor.clean_up(session_id, work, run.pid)
            scratch.remove(Path(run.scratch))
        if run.run_id not in spooled:
            log.warning("run %s was in hand when the worker stopped", run.run_id)
            outcome = _restarted(calls) if run.scratch else NEVER_BEGUN
            resumable = session.id if session else run.resume_session_id
            journal.put_outcome(run.run_id, replace(outcome, session_id=resumable).body())
        journal.release(run.run_id)
    for session in journal.sessions.all():
        if session.in_use:
            # The file that told of the session's run was lost. What the run has done is therefore not known.
            _keep(journal, executor, replace(session, had_effects=True))
    journal.sweep()


def _leave_session(
    journal: Journal,
    executor: Executor,
    run: HeldRun,
    session: Session,
    calls: RecordedCalls | None,
) -> None:
    if session.root:
        executor.clean_up(session.id, session.work, run.pid, keep_session=True)
        scratch.strip(Path(session.root))
    if session.in_use:
        known = session.after(calls.counts(), calls.listed()) if calls else session
        # If its tool calls are not known, the run may have had effects.
        _keep(journal, executor, known if calls else replace(known, had_effects=True))


def _keep(journal: Journal, executor: Executor, session: Session) -> None:
    try:
        journal.sessions.keep(session, executor)
    except OSError as error:
        log.warning("a run's session can't be kept: %s", error.strerror)


def _calls_of(journal: Journal, run: HeldRun) -> RecordedCalls | None:
    """Return the tool calls of an earlier process's run; None if they are not known."""
    path = journal.calls_of(run.run_id)
    if not path.exists():
        return None
    try:
        return ToolCalls.read(path)
    except OSError as error:
        log.warning("the tool calls of run %s can't be read: %s", run.run_id, error.strerror)
        return None


def _restarted(calls: RecordedCalls | None) -> Outcome:
    if calls is None:
        return RESTARTED
    return replace(RESTARTED, tool_calls=calls.counts(), tool_call_list=calls.listed())


def hand_back(
    api: Api,
    journal: Journal,
    executor: Executor,
    run_id: str,
    outcome: Outcome,
    kept: Callable[[], None],
    wait: Callable[[float], bool],
) -> None:
    """Report a run that the API has granted and that the worker does not begin. Raises GaveUp and TokenRefused.

    `kept` is called when the outcome is on disk and the run's claimId is used no more, or when the disk has failed.
    Then the run is reported all the same.
    """
    body = outcome.body()
    try:
        journal.put_outcome(run_id, body)
        journal.drop_next_claim_id()
    except OSError as error:
        log.error("run %s: its outcome can't be kept on disk: %s", run_id, error)
    finally:
        kept()
    report(api, journal, executor, run_id, body, wait)
