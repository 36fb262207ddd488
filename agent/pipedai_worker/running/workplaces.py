"""Gives each attempt of a run its workplace, new or that of an earlier one: a directory and a session of claude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipedai_worker.disk.durable import Scratch
from pipedai_worker.disk.sessions import Session, Sessions, session_of
from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.executors.base import Execution, Executor, JobSession
from pipedai_worker.logs import get_logger
from pipedai_worker.polling.assigned import AssignedRun
from pipedai_worker.reporting.outcome import FAILED, INFRA, WAITING, Outcome
from pipedai_worker.running.stopping import StopReason

log = get_logger(__name__)

# When a run is stopped for one of these reasons, the API gives it to a worker again.
HANDED_BACK = frozenset({StopReason.LOST, StopReason.SHUTDOWN, StopReason.TOKEN_REFUSED})
HAD_EFFECTS = (
    "The session of the earlier attempt can't be resumed on this worker. That attempt had effects, or may have had"
    " some, so the run did not begin anew (had_effects)."
)


class HadEffects(Exception):  # noqa: N818 - a state, not a mistake
    """A session can't be resumed, and its run must not begin anew, because what it has done would be done twice."""

    # This outcome names no session. The API, which knows what the earlier attempts told of their tool calls, therefore
    # retries the run anew if they had no effects after all, and otherwise not at all.
    outcome = Outcome(FAILED, INFRA, short_message=HAD_EFFECTS, error_message=HAD_EFFECTS)


@dataclass(frozen=True)
class Workplace:
    """Where one attempt works. `known` is what the worker knows of the session, if that can be resumed later."""

    scratch: Scratch
    session: JobSession
    known: Session | None


@dataclass(frozen=True)
class Workplaces:
    """Finds the workplaces of one granted run, and leaves them."""

    _run: AssignedRun
    _claim_id: str
    _executor: Executor
    _sessions: Sessions

    def find(self, given_up: Callable[[], bool]) -> Workplace:
        """Return the run's workplace; to resume a session, that of the earlier attempt, which is waited for until
        `given_up()` is true. Raises HadEffects, OSError.
        """
        run = self._run
        if run.resume_session_id is None:
            return self._anew()
        earlier = self._sessions.take(run.resume_session_id, run.id, given_up)
        if earlier is None:
            # The worker can't know what the earlier attempt has done.
            log.warning("run %s: its session is not known here", run.id)
            raise HadEffects
        scratch = _open_again(earlier, self._executor)
        if scratch is None:
            return self.instead(earlier)
        log.info("run %s goes on in the session of an earlier attempt", run.id)
        session = JobSession(
            earlier.id,
            resumed=True,
            deferred=earlier.deferred,
            kept=self._is_kept,
            unanswered=earlier.unanswered,
        )
        return Workplace(scratch, session, earlier)

    def instead(self, earlier: Session) -> Workplace:
        """Return a new workplace for a run whose session can't be resumed. Raises HadEffects, and OSError."""
        self._sessions.forget(earlier.id, self._executor)
        if earlier.had_effects:
            log.warning("run %s: its session can't be resumed, and had effects", self._run.id)
            raise HadEffects
        log.warning(
            "run %s: its session can't be resumed; it had no effects, so it begins anew",
            self._run.id,
        )
        return self._anew()

    def _anew(self) -> Workplace:
        scratch = Scratch()
        session_id = session_of(self._claim_id)
        session = JobSession(session_id, kept=self._is_kept and self._executor.resumes)
        if not session.kept:
            return Workplace(scratch, session, None)
        known = Session(session.id, self._run.id, str(scratch.root))
        try:
            self._sessions.begin(known)
        except OSError:
            scratch.remove()
            raise
        return Workplace(scratch, session, known)

    @property
    def _is_kept(self) -> bool:
        return self._run.may_be_resumed or self._run.approvals is not None

    def leave(
        self, workplace: Workplace, execution: Execution | None, calls: ToolCalls, pid: int | None
    ) -> bool:
        """Remove what the attempt left, or keep what another one needs to go on. Tell whether that is kept."""
        scratch, known, executor = workplace.scratch, workplace.known, self._executor
        waits = execution is not None and execution.outcome.status == WAITING
        goes_on = waits or (self._run.may_be_resumed and _may_be_retried(execution))
        if known is not None and workplace.session.kept and goes_on:
            executor.clean_up(known.id, scratch.work, pid, keep_session=True)
            scratch.strip()
            try:
                after = known.after(calls.counts(), calls.listed())
                return self._sessions.keep(replace(after, waits=waits), executor)
            except OSError as error:
                log.warning("a run's session can't be kept: %s", error.strerror)
        executor.clean_up(workplace.session.id, scratch.work, pid)
        scratch.remove()
        if known is not None:
            self._sessions.forget(known.id, executor)
        return False


def _may_be_retried(execution: Execution | None) -> bool:
    if execution is None:
        return True
    if execution.session_refused or execution.stopped_by is StopReason.CANCELED:
        return False
    if execution.stopped_by in HANDED_BACK:
        return True
    failed = execution.stopped_by is not None or execution.outcome.status == FAILED
    return failed and execution.outcome.fault_class == INFRA


def _open_again(session: Session, executor: Executor) -> Scratch | None:
    """Open the directory of an earlier attempt; return None if the session can't be resumed in it."""
    lost_files = session.had_files and not session.work.is_dir()
    if not session.root or not executor.resumes or lost_files:
        return None
    if not executor.session_files(session.id, session.work):
        return None
    try:
        return Scratch(Path(session.root))
    except OSError as error:
        log.warning("the directory of a session can't be used: %s", error.strerror)
        return None
