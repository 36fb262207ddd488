"""Cleans up, when a worker starts, what a killed one left behind: programs, files, outcomes and claims."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from pipedai_worker.disk import durable
from pipedai_worker.disk.journal import HeldRun, Journal
from pipedai_worker.disk.sessions import Session, session_of
from pipedai_worker.disk.tool_calls import RecordedCalls, ToolCalls
from pipedai_worker.executors.base import Executor
from pipedai_worker.logs import get_logger
from pipedai_worker.running import process
from pipedai_worker.running.outcome import FAILED, INFRA, Outcome

log = get_logger(__name__)

RESTARTED = Outcome(FAILED, INFRA, error_message="worker restarted")
# The outcome of a run without a program, which has called and cost nothing. Its claim has started it all the same.
NEVER_BEGUN = replace(RESTARTED, tool_calls={"total": 0, "effects": 0, "unknown": 0}, cost_usd=0.0)
# The outcome of a run that the API has granted while the worker was told to end, and of one that the worker can't read.
NOT_BEGUN = replace(NEVER_BEGUN, error_message="The worker was stopped before the run began.")
UNREADABLE = replace(NEVER_BEGUN, error_message="The worker can't read this run.")


def clean_up(journal: Journal, executor: Executor) -> None:
    """End the processes of earlier runs, remove their files, and write an outcome for each run in hand. The files of a
    session that can be resumed stay. Nothing is sent to the API.
    """
    spooled = journal.outcomes()
    for run in journal.held():
        end_orphans(run)
        calls = _calls_of(journal, run)
        session = journal.sessions.of_run(run.run_id)
        if session is not None:
            _leave_session(journal, executor, run, session, calls)
        elif run.scratch:
            session_id, work = session_of(run.claim_id), durable.work(Path(run.scratch))
            executor.clean_up(session_id, work, run.pid)
            durable.remove_tree(Path(run.scratch))
        if run.run_id not in spooled:
            log.warning("run %s was in hand when the worker stopped", run.run_id)
            outcome = RESTARTED if run.scratch else NEVER_BEGUN
            if run.scratch and calls:
                outcome = replace(outcome, tool_calls=calls.counts(), tool_call_list=calls.listed())
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
        durable.strip(Path(session.root))
    if session.in_use:
        # If its tool calls are not known, the run may have had effects.
        had_effects = replace(session, had_effects=True)
        known = session.after(calls.counts(), calls.listed()) if calls else had_effects
        _keep(journal, executor, replace(known, waits=False))


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


# This variable marks the processes of a run, which inherit it. Its value is the random id of the run's claim.
MARK = "PIPEDAI_CLAIM_ID"
TERM_GRACE_SECONDS = 2.0


def end_orphans(run: HeldRun) -> None:
    """End the run's process group and, on Linux, every process that has the run's mark in its environment."""
    pid, started = run.pid, run.process_started
    for number in (signal.SIGTERM, signal.SIGKILL):
        # If the group's first process is gone, another group may have got its id since.
        if pid is None or started is None or process.start_time(pid) != started:
            break
        log.warning("ending process group %d, left running by a killed worker", pid)
        process.signal_group(pid, number)
        deadline = time.monotonic() + TERM_GRACE_SECONDS
        while time.monotonic() < deadline and process.start_time(pid) == started:
            time.sleep(0.05)
    end_marked(run.claim_id)


def end_marked(claim_id: str) -> None:
    """Kill every process whose environment has the mark of this claim, even outside the run's group (on Linux)."""
    for _ in range(10):
        # A process may have started another one during the search, so the search is repeated until it finds none.
        killed = [pid for pid in _process_ids() if _kill_if_marked(pid, claim_id)]
        if not killed:
            return
        time.sleep(0.02)


def _process_ids() -> list[int]:
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return []
    try:
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []


def _kill_if_marked(pid: int, claim_id: str) -> bool:
    """Kill the process if it has the mark of this claim, and tell whether it did. Its pidfd is opened before the mark
    is read, so that no process that gets the same id is killed.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # A process that has ended, and waits for its parent to notice, has no environment: it is not killed again.
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"{MARK}={claim_id}".encode() not in variables:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
