"""Takes one run through its life on this machine: claim, start, execute, write the outcome to disk, report it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipedai_worker import mcp, orphans, places
from pipedai_worker.answers import Refused, TokenRefused
from pipedai_worker.api import Api
from pipedai_worker.assigned import AssignedRun
from pipedai_worker.environment import allowed
from pipedai_worker.events.recorder import Recorder
from pipedai_worker.executors.base import Execution, Executor, Job
from pipedai_worker.gateway import Gateway
from pipedai_worker.heartbeat import Heartbeat
from pipedai_worker.journal import CLAIMED, HeldRun, Journal
from pipedai_worker.logs import get_logger, known_secrets
from pipedai_worker.outcome import CANCELED, CLIENT, FAILED, INFRA, NONE, TIMED_OUT, Outcome
from pipedai_worker.patience import GaveUp, until_answered
from pipedai_worker.paying import EVERY_CREDENTIAL
from pipedai_worker.places import HadEffects, Place
from pipedai_worker.probing import probe
from pipedai_worker.process import Program
from pipedai_worker.recovery import UNREADABLE
from pipedai_worker.redact import Redactor
from pipedai_worker.reporting import report
from pipedai_worker.run_events import RunEvents, Sink
from pipedai_worker.stopping import StopReason, StopRequest
from pipedai_worker.tool_calls import ToolCalls

log = get_logger(__name__)

# How many seconds a program gets to end, from its first signal to SIGKILL. The API waits 60 s for the report of a run
# whose time is up. When the worker itself is stopped, the program gets less time, because the worker has to be gone 30
# s after its own SIGTERM.
TERM_GRACE_SECONDS = 10.0
SHUTDOWN_TERM_GRACE_SECONDS = 2.0
# The API's word for the state of a run that has been started.
RUNNING = "running"
NO_CALLS = {"total": 0, "effects": 0, "unknown": 0}


@dataclass(frozen=True)
class Surroundings:
    """The objects and settings that all runs of this worker share."""

    api: Api
    journal: Journal
    executor: Executor
    # Names of environment variables that the program gets beside the allow-listed ones.
    pass_env: tuple[str, ...]
    # The directory for live run events; None if nobody asked for them.
    events: Path | None
    # Sleeps for so many seconds; returns True once the worker takes no new runs.
    draining: Callable[[float], bool]
    # Sleeps for so many seconds; returns True once the worker has to exit.
    leaving: Callable[[float], bool]
    # Called with a run's id when its claim has been granted.
    claimed: Callable[[str], None]


class Run:
    def __init__(
        self,
        assigned: AssignedRun,
        claim_id: str,
        around: Surroundings,
        granted: dict[str, Any] | None = None,
    ) -> None:
        """Make the run. `granted` is what the API says of it if the API has claimed it already; None if not."""
        self.assigned = assigned
        self._granted = granted
        self.stop = StopRequest()
        self.claimed = False
        self._held = HeldRun(assigned.id, claim_id, resume_session_id=assigned.resume_session_id)
        self._around = around
        # No text that leaves the worker may contain the run's headers, the worker's token, or the secrets that claude
        # logs in with.
        self._secrets = [*assigned.mcp_headers.values(), around.api.token]
        self._secrets += [os.environ.get(name, "") for name in EVERY_CREDENTIAL]
        self._redactor = Redactor(self._secrets)
        self._calls: ToolCalls | None = None
        self._recorder: Recorder | None = None
        # The session in which another attempt of the run can go on; None if there is none.
        self._kept_session = assigned.resume_session_id
        self._heartbeat = Heartbeat(around.api, assigned.id, self.stop, self._counts)

    def live(self) -> None:
        """Take the run from its claim to its report, in the calling thread. Raises TokenRefused, GaveUp, OSError."""
        run_id = self.assigned.id
        known_secrets.add(run_id, self._secrets)
        try:
            state = self._claim() if self._granted is None else self._keep(self._granted)
            if state is not None:
                self._execute_and_report(state)
        finally:
            known_secrets.remove(run_id)

    def _claim(self) -> dict[str, Any] | None:
        """Claim the run. Return what the API says of it, or None if there is nothing to execute.

        Then the API has not granted the claim, or the worker can't read its answer and has reported the run.
        """
        around, run_id = self._around, self.assigned.id
        self._held = around.journal.hold(self._held)
        try:
            state = until_answered(
                lambda: around.api.claim(run_id, self._held.claim_id), around.draining
            )
        except Refused as refused:
            log.info("run %s not claimed: %s", run_id, refused)
            around.journal.release(run_id)
            return None
        self.claimed = True
        around.claimed(run_id)
        try:
            self.assigned = self.assigned.as_claimed(state)
        except ValueError:
            log.warning("run %s: the cost limit that its claim answered can't be read", run_id)
            self._report(UNREADABLE)
            return None
        return state

    def _keep(self, granted: dict[str, Any]) -> dict[str, Any] | None:
        """Write down a run that the API has claimed already. Return what the API says of it.

        Until the run is on disk, the worker asks for no other one: a worker that is killed before that gets this run
        again by the same claimId. Return None if the run can't be written down; then it has been reported, and
        `claimed` stays false, so that the worker waits before it takes another run.
        """
        around, run_id = self._around, self.assigned.id
        try:
            self._held = around.journal.hold(self._held)
            around.journal.drop_next_claim_id()
        except OSError as error:
            self._report(replace(_disk_failed(error), tool_calls=NO_CALLS, cost_usd=0.0))
            return None
        finally:
            around.claimed(run_id)
        self.claimed = True
        return granted

    def _execute_and_report(self, state: dict[str, Any]) -> None:
        around, run_id = self._around, self.assigned.id
        log.info(
            "run %s claimed: %r, attempt %d",
            run_id,
            self.assigned.trigger_name,
            self.assigned.attempt,
        )
        self._calls = _open_calls(around.journal.calls_of(run_id))
        with self._heartbeat:
            outcome = self._execute(state)
            if outcome is None:
                around.journal.release(run_id)
            else:
                self._report(outcome)

    def _counts(self) -> dict[str, int] | None:
        return self._calls.counts() if self._calls else None

    def _report(self, outcome: Outcome) -> None:
        if self._calls is not None:
            outcome = replace(
                outcome, tool_calls=self._calls.counts(), tool_call_list=self._calls.listed()
            )
            self._calls.close()
        outcome = places.with_session(outcome, self._kept_session)
        if outcome.status == CANCELED and self.assigned.resume_session_id is not None:
            sessions = self._around.journal.sessions
            sessions.forget(self.assigned.resume_session_id, self._around.executor)
        body, run_id = outcome.redacted(self._redactor).body(), self.assigned.id
        journal = self._around.journal
        try:
            journal.put_outcome(run_id, body)
            journal.release(run_id)
        except OSError as error:
            log.error("run %s: its outcome can't be kept on disk: %s", run_id, error)
        if self._recorder and not self.stop.hasty:
            self._recorder.flush()
        around = self._around
        report(around.api, journal, around.executor, run_id, body, around.leaving)
        journal.release(run_id)

    def _execute(self, state: dict[str, object]) -> Outcome | None:
        """Execute the run. Return the outcome to report, or None when the run no longer belongs to this worker."""
        if state.get("cancelRequested"):
            # The API may have started the run with its claim, and would take its cost for unknown.
            return Outcome(CANCELED, cost_usd=0.0)
        try:
            self._held = self._around.journal.update(self._held, phase=CLAIMED)
            self._start(state)
            if self.stop.reason is not None:
                execution = Execution(Outcome(FAILED), self.stop.reason)
            else:
                execution = self._execute_in_place()
        except Refused as refused:
            log.warning("run %s not started: %s", self.assigned.id, refused)
            return None
        except TokenRefused:
            self.stop.request(StopReason.TOKEN_REFUSED)
            execution = Execution(Outcome(FAILED), StopReason.TOKEN_REFUSED)
        except OSError as error:
            return _disk_failed(error)
        except GaveUp:
            execution = Execution(Outcome(FAILED), StopReason.SHUTDOWN)
        except Exception:
            log.exception("run %s: the worker itself failed", self.assigned.id)
            return Outcome(FAILED, INFRA, error_message="The worker itself failed; see its log.")
        if execution.stopped_by is None:
            return execution.outcome
        log.info("run %s stopped: %s", self.assigned.id, execution.stopped_by.value)
        return self._stopped_outcome(execution.outcome, execution.stopped_by)

    def _start(self, state: dict[str, object]) -> None:
        """Tell the API that the run has started, unless its claim has started it: an older API does not do that.

        Raises Refused, TokenRefused, and GaveUp when the worker has to exit.
        """
        if state.get("status") == RUNNING:
            return
        state = until_answered(
            lambda: self._around.api.start(self.assigned.id), self._around.leaving
        )
        if state.get("cancelRequested"):
            self.stop.request(StopReason.CANCELED)

    def _execute_in_place(self) -> Execution:
        """Execute the run where an earlier attempt stopped, if it is to go on there, and otherwise anew."""
        if self._calls is None:
            raise OSError(errno.EIO, "the run's tool calls can't be kept")
        around, directory = self._around, self._around.events
        here = (self.assigned, self._held.claim_id, around.executor, around.journal.sessions)
        deadline = time.monotonic() + self.assigned.timeout_seconds
        events = RunEvents(directory, self.assigned.id, self._redactor) if directory else None
        recorder = self._recorder = self._begin_recording()
        told = _to_each(
            [each for each in (events and events.write, recorder and recorder.take) if each]
        )
        try:
            place = places.find(*here, given_up=lambda: self.stop.reason is not None)
            execution = self._execute_at(place, self._calls, told, deadline)
            if execution.session_refused and place.known is not None:
                place = places.instead(*here, place.known)
                execution = self._execute_at(place, self._calls, told, deadline)
            return execution
        except HadEffects as end:
            if self.stop.reason is None:
                self._kept_session = None
            return Execution(end.outcome, self.stop.reason)
        finally:
            if events:
                events.close()
            if recorder:
                recorder.finish()

    def _begin_recording(self) -> Recorder | None:
        if not self.assigned.record_events:
            return None
        around, run_id = self._around, self.assigned.id
        path = around.journal.events_of(run_id)
        return Recorder.begin(around.api, run_id, path, self._redactor, around.leaving)

    def _execute_at(self, place: Place, calls: ToolCalls, told: Sink, deadline: float) -> Execution:
        around, executor, scratch = self._around, self._around.executor, place.scratch
        execution = None
        try:
            if place.session.resumed:
                self._heartbeat.session_id = place.session.id
            self._held = around.journal.update(self._held, scratch=str(scratch.root))
            with Gateway(
                url=self.assigned.mcp_url,
                headers=self.assigned.mcp_headers,
                calls=calls,
                before_first_effect=self._heartbeat.tell,
            ) as gateway:
                execution = probe(gateway, self.stop) if executor.needs_server else None
                if execution is None:
                    limit = self.assigned.timeout_seconds
                    scratch.write_mcp_config(mcp.configuration(gateway.url, limit))
                    execution = executor.execute(self._job(place, gateway.url, told, deadline))
                return execution
        finally:
            # The program may have left processes outside its process group. They are ended before the files are
            # removed, so that they write no new ones.
            orphans.end_marked(self._held.claim_id)
            kept = places.leave(
                place, execution, calls, self._held.pid, executor, around.journal.sessions
            )
            self._kept_session = place.session.id if kept else None

    def _session_begun(self, place: Place) -> None:
        if place.session.kept:
            self._heartbeat.session_id = place.session.id

    def _job(self, place: Place, mcp_url: str, told: Sink, deadline: float) -> Job:
        scratch = place.scratch
        environment = allowed((*self._around.executor.credentials, *self._around.pass_env))
        environment[orphans.MARK] = self._held.claim_id
        environment["PIPEDAI_RUN_ID"] = self.assigned.id
        environment["TMPDIR"] = str(scratch.temporary)

        def should_stop() -> StopReason | None:
            if self.stop.reason is None and time.monotonic() >= deadline:
                self.stop.request(StopReason.TIMED_OUT)
            return self.stop.reason

        return Job(
            run=self.assigned,
            directory=scratch.work,
            mcp_config=scratch.mcp_config,
            mcp_url=mcp_url,
            files=scratch.files,
            session=place.session,
            environment=environment,
            redactor=self._redactor,
            should_stop=should_stop,
            term_grace=self._term_grace,
            launched=self._launched,
            session_begun=lambda: self._session_begun(place),
            told=told,
        )

    def _term_grace(self) -> float:
        return SHUTDOWN_TERM_GRACE_SECONDS if self.stop.hasty else TERM_GRACE_SECONDS

    def _launched(self, program: Program) -> None:
        try:
            self._held = self._around.journal.update(
                self._held, pid=program.pid, process_started=program.started
            )
        except OSError as error:
            log.warning("run %s: its process can't be noted on disk: %s", self.assigned.id, error)

    def _stopped_outcome(self, known: Outcome, reason: StopReason) -> Outcome | None:
        if reason is StopReason.LOST:
            return None
        if reason is StopReason.CANCELED:
            return replace(known, status=CANCELED, fault_class=NONE, error_message="")
        if reason is StopReason.TIMED_OUT:
            sentence = f"Stopped after its time limit of {self.assigned.timeout_seconds:g} s."
            if known.fault_class == INFRA:
                sentence += f" {known.error_message}"
            fault_class = INFRA if known.fault_class == INFRA else CLIENT
            return replace(known, status=TIMED_OUT, fault_class=fault_class, error_message=sentence)
        return replace(
            known,
            status=FAILED,
            fault_class=INFRA,
            error_message="The worker was stopped before the run ended.",
        )


def _disk_failed(error: OSError) -> Outcome:
    return Outcome(FAILED, INFRA, error_message=f"The worker's disk failed: {error.strerror}")


def _open_calls(path: Path) -> ToolCalls | None:
    try:
        # An earlier claim of the same run, which got no further, may have left a file.
        path.unlink(missing_ok=True)
        return ToolCalls(path)
    except OSError as error:
        log.error("a run's tool calls can't be kept on disk: %s", error.strerror)
        return None


def _to_each(sinks: Sequence[Sink]) -> Sink:
    """Return a function that passes each event of the run's program to all of these."""

    def told(kind: str, payload: Any) -> None:
        for sink in sinks:
            sink(kind, payload)

    return told
