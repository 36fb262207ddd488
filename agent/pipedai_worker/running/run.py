"""Takes one granted run through its life on this machine: executes it, writes its outcome down, and reports it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pipedai_worker.api import Api, NotOurApi, Refused, until_answered
from pipedai_worker.disk import durable, journal
from pipedai_worker.disk.durable import logged
from pipedai_worker.disk.journal import HeldRun
from pipedai_worker.disk.sessions import HadEffects, Session, Workplace, Workplaces
from pipedai_worker.disk.spool import RunEvents, Sink
from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.executors import claude
from pipedai_worker.executors.base import LARGEST_SEEN, Execution, Job, allowed, cut
from pipedai_worker.gateway import Credentials, Gate, Gateway, Look
from pipedai_worker.identity import EVERY_CREDENTIAL
from pipedai_worker.redact import Redactor, known_secrets
from pipedai_worker.running.assigned import (
    ALWAYS,
    FAILURES,
    Approvals,
    AssignedRun,
    Rule,
    parse_headers,
)
from pipedai_worker.running.outcome import (
    ABSENT,
    CANCELED,
    CLIENT,
    FAILED,
    INFRA,
    NONE,
    SUCCEEDED,
    TIMED_OUT,
    WAITING,
    Fault,
    Outcome,
)
from pipedai_worker.running.process import Program
from pipedai_worker.running.reporting import Heartbeat, Recorder, Surroundings, report
from pipedai_worker.running.stopping import StopReason, StopRequest

log = logging.getLogger(__name__)

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
    around: Surroundings,
    redactor: Redactor,
    ending: Ending,
) -> Gate | None:
    """Return the gate for one program of a run; None if none of the run's calls needs an approval."""
    approvals = _approvals_of(run, workplace.known)
    if approvals is None:
        return None
    session_id = workplace.session.id

    def make_room(tool: str, with_effect: set[str]) -> bool:
        with logged("a session can't be kept for a run that waits", logging.ERROR):
            sessions = around.journal.sessions
            return sessions.make_room(session_id, around.executor, tool, with_effect)
        return False

    def spend(approval_id: str) -> None:
        # If the worker is killed from here on, claude must not make the call again when the run goes on.
        around.journal.sessions.undefer(session_id)
        until_answered(lambda: around.api.spend(run.id, approval_id), ending.within)

    return Gate(
        approvals,
        redact=redactor.redact_json,
        make_room=make_room,
        spend=spend,
        with_effect=workplace.known.with_effect if workplace.known else (),
    )


def _approvals_of(run: AssignedRun, known: Session | None) -> Approvals | None:
    """Return the rules for the gate. A session may end with a deferred call, for which an earlier run asked. Claude
    makes the call when the session is resumed, even if the trigger has no rule for it any more, so the call's tool
    stays gated until a person has decided for this run.
    """
    if known is None or not known.deferred or not known.asked_tool or run.is_decided:
        return run.approvals
    approvals = run.approvals or Approvals((), allow_host_tools=True, decision=None)
    asked = Rule(frozenset([known.asked_tool]), only_effects=False)
    return replace(approvals, rules=(*approvals.rules, asked))


# The worker hides only this many of a run's latest headers. Older ones have expired long ago, and to look for a day's
# tokens of five minutes each would cost ten seconds for a megabyte of output.
MOST_REMEMBERED = 20


class RunCredentials:
    """A context manager in which the worker's log hides the run's secrets. `redactor` hides them elsewhere."""

    def __init__(self, api: Api, run: AssignedRun) -> None:
        self._api = api
        self._run_id = run.id
        self._mcp_url = run.mcp_url
        # When the present headers expire, as the API says it.
        self._expires_at: object = run.headers_expire_at
        self.present = self._credentials(run.mcp_headers)
        self._headers = deque([run.mcp_headers], maxlen=MOST_REMEMBERED)
        self._others = [api.token, *(os.environ.get(name, "") for name in EVERY_CREDENTIAL)]
        self.redactor = Redactor(self._secrets())

    def __enter__(self) -> None:
        known_secrets.add(self._run_id, self._secrets())

    def __exit__(self, *_: object) -> None:
        known_secrets.remove(self._run_id)

    def ask(self, refused: bool = False) -> Credentials:
        """Return the trigger's present headers, hidden from now on, in place of `refused` ones. Raises ApiError."""
        answer = self._api.credentials(self._run_id, self._expires_at if refused else None)
        # The API can't always tell: after this worker's poll, another one may have been handed the run with a new URL.
        if answer.get("mcpUrl") != self._mcp_url:
            raise Refused("The run's trigger has another MCP URL by now.", HTTPStatus.CONFLICT)
        try:
            headers = parse_headers(answer["headers"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise NotOurApi("The answer to a request for credentials has no headers.") from None
        if headers != self._headers[-1]:
            self._headers.append(headers)
            self.redactor.hide(self._secrets())
            known_secrets.add(self._run_id, self._secrets(), instead=True)
        self._expires_at = answer.get("expiresAt")
        self.present = self._credentials(headers)
        return self.present

    def _secrets(self) -> list[str]:
        return [*(value for each in self._headers for value in each.values()), *self._others]

    def _credentials(self, headers: Mapping[str, str]) -> Credentials:
        seconds = self._api.seconds_until(self._expires_at)
        return Credentials(headers, None if seconds is None else time.monotonic() + seconds)


# How many seconds a program gets to end, from its first signal to SIGKILL. The API waits 60 s for the report of a run
# whose time is up. A worker that is stopped has to be gone 30 s after its own SIGTERM.
TERM_GRACE_SECONDS = 10.0
SHUTDOWN_TERM_GRACE_SECONDS = 2.0
# What becomes of a run that was to wait, if its session could not be kept.
NOT_KEPT: dict[str, Any] = {
    "status": FAILED,
    "fault_class": INFRA,
    "error_message": "The run was to wait for an approval, but the worker could not keep its session.",
}
NO_CALLS = {"total": 0, "effects": 0, "unknown": 0}


class Run:
    def __init__(
        self,
        assigned: AssignedRun,
        claim_id: str,
        around: Surroundings,
        granted: dict[str, Any],
    ) -> None:
        self.assigned = assigned
        self._granted = granted
        self.stop = StopRequest()
        # True once the run is on disk.
        self.claimed = False
        self._held = HeldRun(assigned.id, claim_id, resume_session_id=assigned.resume_session_id)
        self._around = around
        self._workplaces = Workplaces(assigned, claim_id, around.executor, around.journal.sessions)
        self._credentials = RunCredentials(around.api, assigned)
        self._redactor = self._credentials.redactor
        self._calls: ToolCalls | None = None
        self._recorder: Recorder | None = None
        # The session in which another attempt of the run can go on; None if there is none.
        self._kept_session = assigned.resume_session_id
        # The result of the look before the agent; ABSENT if there was none.
        self._seen: Any = ABSENT
        # Decides which of the run's tool calls may be sent; None if none needs a person's approval.
        self._gate: Gate | None = None
        self._heartbeat = Heartbeat(around.api, assigned.id, self.stop, self._counts, self._watched)

    def live(self) -> None:
        """Execute and report the run, in the calling thread. Raises TokenRefused, GaveUp, OSError."""
        around, run_id = self._around, self.assigned.id
        name, attempt = self.assigned.trigger_name, self.assigned.attempt
        with self._credentials:
            if not self._keep():
                return
            log.info("run %s claimed: %r, attempt %d", run_id, name, attempt)
            self._calls = _open_calls(around.journal.calls_of(run_id), self._redactor)
            status = None
            with self._heartbeat:
                outcome = self._execute()
                if outcome is None:
                    around.journal.release(run_id)
                else:
                    status = self._report(outcome)
            if self._recorder:
                self._recorder.sender.end(status, hasty=self.stop.hasty)

    def _keep(self) -> bool:
        """Write the run to disk. Return False if that failed; the run has then been reported. Until this is done the
        worker asks for no other run, so that after a kill the same claimId gives it this run again.
        """
        around = self._around
        try:
            self._held = around.journal.hold(self._held)
            around.journal.drop_next_claim_id()
        except OSError as error:
            self._report(replace(_disk_failed(error), tool_calls=NO_CALLS, cost_usd=0.0))
            return False
        finally:
            around.claimed(self.assigned.id)
        self.claimed = True
        return True

    def _counts(self) -> dict[str, int] | None:
        return self._calls.counts() if self._calls else None

    def _watched(self) -> None:
        if self._recorder:
            self._recorder.sender.watch()

    def _report(self, outcome: Outcome) -> str | None:
        """Report the run, and return the status that the API then says it has."""
        around, journal, run_id = self._around, self._around.journal, self.assigned.id
        if self._calls is not None:
            outcome = replace(
                outcome, tool_calls=self._calls.counts(), tool_call_list=self._calls.listed()
            )
            self._calls.close()
        outcome = replace(outcome, before=self._held.before)
        if self._gate is not None:
            denied = self._gate.denied(waits=outcome.status == WAITING)
            outcome = replace(outcome, denied={**outcome.denied, **denied})
        if outcome.status == WAITING:
            if self._kept_session is None:
                outcome = replace(outcome, approval=None, **NOT_KEPT)
            else:
                around.parking(run_id)
        if not outcome.session_id:
            outcome = replace(outcome, session_id=self._kept_session)
        if outcome.status == CANCELED and self.assigned.resume_session_id is not None:
            journal.sessions.forget(self.assigned.resume_session_id, around.executor)
        body = outcome.redacted(self._redactor).body()
        if outcome.status == WAITING:
            # The claimId tells which claim this report belongs to. If it is sent again after the run has been claimed
            # anew, it must not end the run.
            body["claimId"] = self._held.claim_id
        with logged(f"run {run_id}: its outcome can't be kept on disk", logging.ERROR):
            journal.put_outcome(run_id, body)
            journal.release(run_id)
        if self._recorder and not self.stop.hasty:
            self._recorder.sender.flush()
        status = report(around, run_id, body)
        journal.release(run_id)
        return status

    def _execute(self) -> Outcome | None:
        if self._granted.get("cancelRequested"):
            # The claim has started the run, and without this 0 the API would take its cost for unknown.
            return Outcome(CANCELED, cost_usd=0.0)
        try:
            reason = self.stop.reason
            execution = Execution(Outcome(FAILED), reason) if reason else self._execute_in_place()
        except OSError as error:
            return _disk_failed(error)
        except Exception:
            log.exception("run %s: the worker itself failed", self.assigned.id)
            return Outcome(FAILED, INFRA, error_message="The worker itself failed; see its log.")
        if execution.stopped_by is None:
            return execution.outcome
        log.info("run %s stopped: %s", self.assigned.id, execution.stopped_by.value)
        return self._stopped_outcome(execution.outcome, execution.stopped_by)

    def _execute_in_place(self) -> Execution:
        """Execute the run where an earlier attempt stopped, if it is to go on there, and otherwise anew."""
        if self._calls is None:
            raise OSError(errno.EIO, "the run's tool calls can't be kept")
        directory = self._around.events
        deadline = time.monotonic() + self.assigned.timeout_seconds
        waits = False
        events = RunEvents(directory, self.assigned.id, self._redactor) if directory else None
        recorder = self._recorder = self._begin_recording()

        def on_event(kind: str, payload: Any) -> None:
            if events:
                events.write(kind, payload)
            if recorder:
                recorder.take(kind, payload)

        try:
            workplace = self._workplaces.find(lambda: self.stop.reason is not None)
            execution = self._execute_at(workplace, self._calls, on_event, deadline)
            if execution.session_refused and workplace.known is not None:
                workplace = self._workplaces.instead(workplace.known)
                execution = self._execute_at(workplace, self._calls, on_event, deadline)
            waits = execution.stopped_by is None and execution.outcome.status == WAITING
            return execution
        except HadEffects as end:
            if self.stop.reason is None:
                self._kept_session = None
            return Execution(end.outcome, self.stop.reason)
        finally:
            if events:
                events.close()
            if recorder:
                recorder.finish(waits=waits)

    def _begin_recording(self) -> Recorder | None:
        if self.assigned.record_events not in {ALWAYS, FAILURES}:
            return None
        around, run_id = self._around, self.assigned.id
        kept, go_on = self.assigned.record_events == FAILURES, self.assigned.is_decided
        path = around.journal.events_of(run_id, kept=kept)
        if go_on:
            # Whether the run is watched may have changed while it waited.
            with contextlib.suppress(FileNotFoundError):
                around.journal.events_of(run_id, kept=not kept).rename(path)
        return Recorder.begin(around.api, run_id, path, self._redactor, around.leaving, go_on=go_on)

    def _execute_at(
        self, workplace: Workplace, calls: ToolCalls, on_event: Sink, deadline: float
    ) -> Execution:
        around, executor, scratch = self._around, self._around.executor, workplace.scratch
        execution, ending = None, Ending(self.stop)
        try:
            if workplace.session.resumed:
                self._heartbeat.session_id = workplace.session.id
            self._held = around.journal.update(self._held, scratch=str(scratch.root))
            self._gate = gate_of(self.assigned, workplace, around, self._redactor, ending)
            with Gateway(
                url=self.assigned.mcp_url or "",
                credentials=self._credentials.present,
                ask=self._credentials.ask,
                calls=calls,
                before_first_effect=self._heartbeat.tell,
                gate=self._gate,
            ) as gateway:
                before = None if workplace.session.resumed else self.assigned.before
                look = Look(before, calls, self._gate) if before else None
                has_server = self.assigned.mcp_url is not None
                if look or (executor.needs_server and has_server):
                    execution = self._probe(gateway, look, deadline)
                if execution is None:
                    limit = self.assigned.timeout_seconds
                    # Without an MCP server, the gateway only answers the hook of a run with rules.
                    url = gateway.url if has_server else ""
                    configuration = claude.mcp_configuration(url, limit)
                    durable.write_private(scratch.mcp_config, configuration)
                    job = self._job(workplace, url, on_event, deadline)
                    execution = executor.execute(job)
                    if execution.nothing_deferred:
                        going_on = replace(job.session, deferred=False)
                        execution = executor.execute(replace(job, session=going_on))
                return execution
        finally:
            # Processes that the program left outside its group are ended first, so that they write no new files.
            journal.end_marked(self._held.claim_id)
            ending.over.set()
            kept = self._workplaces.leave(workplace, execution, calls, self._held.pid)
            self._kept_session = workplace.session.id if kept else None

    def _probe(self, gateway: Gateway, look: Look | None, deadline: float) -> Execution | None:
        """Return how the run ends; None if its MCP server can be used, and the `look` has found something new."""
        found = gateway.probe(lambda: self._should_stop(deadline) is not None, look)
        # No program was started, so the run has cost nothing.
        ended = Outcome(FAILED, cost_usd=0.0)
        if self.stop.reason is not None:
            late = "The MCP server had not answered by then."
            return Execution(
                replace(ended, fault_class=INFRA, error_message=late), self.stop.reason
            )
        only = self.assigned.before is not None and self.assigned.before.only
        if isinstance(found, Fault):
            sentence = found.sentence
            ended = replace(ended, short_message=sentence, error_message=sentence)
            if only:
                return Execution(replace(ended, status=CANCELED))
            return Execution(replace(ended, fault_class=found.fault_class))
        if found is None:
            return None
        if only:
            # Secrets are replaced before the result is cut, as the cut could leave a part of one.
            result = cut(self._redactor.redact_json(found.value), LARGEST_SEEN)
            would = {"wouldRun": found.is_new, "result": result}
            message = "Something is new." if found.is_new else "Nothing is new."
            return Execution(replace(ended, status=CANCELED, short_message=message, output=would))
        told = {"digest": found.digest, "lookedAt": found.at, "nothingNew": not found.is_new}
        try:
            self._held = self._around.journal.update(self._held, before=told)
        except OSError:
            sentence = "The worker could not write down what it saw."
            return Execution(replace(ended, fault_class=INFRA, error_message=sentence))
        if found.is_new:
            self._seen = self._redactor.redact_json(found.value)
            return None
        return Execution(replace(ended, status=SUCCEEDED, short_message="Nothing new."))

    def _should_stop(self, deadline: float) -> StopReason | None:
        if self.stop.reason is None and time.monotonic() >= deadline:
            self.stop.request(StopReason.TIMED_OUT)
        return self.stop.reason

    def _job(self, workplace: Workplace, mcp_url: str, on_event: Sink, deadline: float) -> Job:
        scratch = workplace.scratch
        environment = allowed((*self._around.executor.credentials, *self._around.pass_env))
        environment[journal.CLAIM_VARIABLE] = self._held.claim_id
        environment["PIPEDAI_RUN_ID"] = self.assigned.id
        environment["TMPDIR"] = str(scratch.temporary)

        def session_begun() -> None:
            if workplace.session.kept:
                self._heartbeat.session_id = workplace.session.id

        return Job(
            run=replace(self.assigned, seen=self._seen),
            directory=scratch.work,
            mcp_config=scratch.mcp_config,
            mcp_url=mcp_url,
            files=scratch.files,
            session=workplace.session,
            environment=environment,
            redactor=self._redactor,
            should_stop=lambda: self._should_stop(deadline),
            term_grace=lambda: (
                SHUTDOWN_TERM_GRACE_SECONDS if self.stop.hasty else TERM_GRACE_SECONDS
            ),
            launched=self._launched,
            session_begun=session_begun,
            on_event=on_event,
            parked=self._gate.parked if self._gate else lambda _: None,
        )

    def _launched(self, program: Program) -> None:
        with logged(f"run {self.assigned.id}: its process can't be noted on disk"):
            self._held = self._around.journal.update(
                self._held, pid=program.pid, process_started=program.started
            )

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


def _open_calls(path: Path, redactor: Redactor) -> ToolCalls | None:
    with logged("a run's tool calls can't be kept on disk", logging.ERROR):
        # An earlier claim of the same run, which got no further, may have left a file.
        path.unlink(missing_ok=True)
        return ToolCalls(path, redactor)
    return None
