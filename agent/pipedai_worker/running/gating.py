"""Makes the gate of a run in which a person approves tool calls, and lets it ask the disk and the API."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from pipedai_worker.api.client import Api
from pipedai_worker.api.patience import until_answered
from pipedai_worker.disk.sessions import Session, Sessions
from pipedai_worker.executors.base import Executor
from pipedai_worker.gateway import Gate
from pipedai_worker.logs import get_logger
from pipedai_worker.polling.approvals import Approvals, Rule
from pipedai_worker.polling.assigned import AssignedRun
from pipedai_worker.redact import Redactor
from pipedai_worker.running.stopping import StopRequest
from pipedai_worker.running.workplaces import Workplace

log = get_logger(__name__)

# A run that waits for its approval to be spent looks this often whether it has been stopped.
LOOK_SECONDS = 0.2


class Ending:
    """Tells whether a run is to end: it has been asked to stop, or its program has ended, which sets `over`."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self.over = threading.Event()

    def within(self, seconds: float) -> bool:
        """Wait for so many seconds, or until the run is to end; return whether it is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._stop.reason is None:
            if self.over.wait(LOOK_SECONDS):
                return True
        return self._stop.reason is not None


def gate_of(
    run: AssignedRun,
    workplace: Workplace,
    *,
    api: Api,
    sessions: Sessions,
    executor: Executor,
    redactor: Redactor,
    ending: Ending,
) -> Gate | None:
    """Return the gate for one program of a run; None if none of the run's calls needs an approval."""
    approvals = _approvals_of(run, workplace.known)
    if approvals is None:
        return None
    session_id = workplace.session.id

    def make_room(tool: str, with_effect: set[str]) -> bool:
        try:
            return sessions.make_room(session_id, executor, tool, with_effect)
        except OSError as error:
            log.error("a session can't be kept for a run that waits: %s", error.strerror)
            return False

    def spend(approval_id: str) -> None:
        # If the worker is killed from here on, claude must not make the call again when the run goes on.
        sessions.undefer(session_id)
        until_answered(lambda: api.spend(run.id, approval_id), ending.within)

    return Gate(
        approvals,
        redact=redactor.redact_json,
        make_room=make_room,
        spend=spend,
        with_effect=workplace.known.with_effect if workplace.known else (),
    )


def _approvals_of(run: AssignedRun, known: Session | None) -> Approvals | None:
    """Return what the gate goes by. A session may end with a call about which an earlier run has asked. Claude makes it
    when the session is resumed, also if the trigger has no rule for it any more, so its tool stays gated until somebody
    has decided for this run.
    """
    if known is None or not known.deferred or not known.asked_tool or run.is_decided:
        return run.approvals
    approvals = run.approvals or Approvals((), allow_host_tools=True, decision=None)
    asked = Rule(frozenset([known.asked_tool]), only_effects=False)
    return replace(approvals, rules=(*approvals.rules, asked))
