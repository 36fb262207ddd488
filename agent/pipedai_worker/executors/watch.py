"""Follows one claude process: reads its events, says when to stop it, and derives the outcome."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.faults import EXECUTION_ERROR, Fault, flaw, judge
from pipedai_worker.executors.stream import SHORTEST_CUT_STRING, JsonLines
from pipedai_worker.executors.tail import Tail
from pipedai_worker.executors.transcript import Transcript, deferred_in, is_success, text_of
from pipedai_worker.reporting import output
from pipedai_worker.reporting.outcome import (
    ABSENT,
    CLIENT,
    FAILED,
    INFRA,
    SUCCEEDED,
    WAITING,
    Outcome,
    iso,
)
from pipedai_worker.running.process import Ending
from pipedai_worker.running.stopping import StopReason

# After its result, claude has this long to exit by itself.
LINGER_SECONDS = 10.0
# Claude must write its first event within this time. Normally it is connected to the MCP server in half a minute.
START_SECONDS = 180.0
STDERR_LENGTH = 4_000


class Watch:
    """Follows one claude process, which may write nothing for up to `silence_seconds`; 0 sets no limit."""

    def __init__(self, job: Job, silence_seconds: float) -> None:
        self._job = job
        self._silence_seconds = silence_seconds
        self._transcript = Transcript()
        self._lines = JsonLines(self._take)
        self._began_at = self._heard_at = time.monotonic()
        self._stopping = False
        # These three keep what was true when the worker asked claude to stop: the result that claude had given, whether
        # claude had nothing left to do, and a sentence on what had kept claude from its work.
        self._result: dict[str, Any] | None = None
        self._had_finished = False
        self._was_kept_by: str | None = None
        self._session_told = False
        # The end of what claude wrote to stderr; empty until claude has ended.
        self._said = ""
        self.stderr = Tail(
            job.redactor, STDERR_LENGTH, lambda text: job.on_event("stderr", {"text": text})
        )

    def read(self, chunk: bytes) -> None:
        self._heard_at = time.monotonic()
        self._lines.feed(chunk)

    def _take(self, event: dict[str, Any]) -> None:
        self._transcript.take(event)
        if self._transcript.at_work and not self._session_told:
            self._session_told = True
            self._job.session_begun()
        kind = event.get("type")
        self._job.on_event(kind if isinstance(kind, str) else "unknown", event)

    def should_stop(self) -> StopReason | None:
        """Return why to stop claude, or None: the job's own reason, or one that claude's events show."""
        reason = self._job.should_stop() or self._own_reason()
        if reason is not None and not self._stopping:
            # A result that comes later is claude's reaction. It tells the cost, but does not decide the run's status.
            self._stopping = True
            self._result = self._transcript.result
            self._had_finished = self._transcript.finished_at is not None
            if self._transcript.retrying:
                self._was_kept_by = "The API of the model was failing then."
            elif not self._transcript.begun:
                self._was_kept_by = "Claude had not begun by then."
        return reason

    def _own_reason(self) -> StopReason | None:
        transcript, now = self._transcript, time.monotonic()
        if not transcript.begun and now - self._began_at >= START_SECONDS:
            return StopReason.NOT_BEGUN
        if transcript.finished_at is not None:
            return StopReason.LINGERING if now - transcript.finished_at >= LINGER_SECONDS else None
        if transcript.server_refused and transcript.result is None:
            return StopReason.NO_SERVER
        # After a result, claude is silent until its work in the background has ended.
        waits = transcript.result is not None and transcript.in_background
        if self._silence_seconds and not waits and now - self._heard_at >= self._silence_seconds:
            return StopReason.SILENT
        return None

    def conclude(self, ending: Ending) -> Execution:
        self._lines.finish()
        self._said = self.stderr.finish(ending)
        stopped_by = ending.stopped_by
        if self._had_finished and stopped_by is not StopReason.LOST:
            stopped_by = None
        if stopped_by is None:
            return Execution(
                self._outcome(ending),
                session_refused=self._session_refused(),
                nothing_deferred=self._nothing_deferred(),
            )
        if stopped_by is StopReason.NO_SERVER:
            return Execution(self._failed(ending, self._no_server(), ""))
        if stopped_by in {StopReason.SILENT, StopReason.NOT_BEGUN}:
            return Execution(self._without_result(ending))
        # A run that takes too long because the model's API fails is not the client's fault.
        known = self._known(ending)
        if self._was_kept_by is None:
            known = replace(known, fault_class=CLIENT)
        else:
            known = replace(known, fault_class=INFRA, error_message=self._was_kept_by)
        return Execution(known, stopped_by)

    def _session_refused(self) -> bool:
        """Tell whether claude has ended because it could not resume the session that it was to go on with."""
        result = self._transcript.result
        if not self._job.session.resumed or self._transcript.at_work or result is None:
            return False
        return result.get("subtype") == EXECUTION_ERROR and not self._transcript.num_turns

    def _nothing_deferred(self) -> bool:
        """Tell whether claude has ended at once because its session has no deferred call to go on with."""
        return self._job.session.deferred and not self._transcript.begun

    def _outcome(self, ending: Ending) -> Outcome:
        transcript = self._transcript
        result = self._result if self._stopping else transcript.result
        if result is None:
            return self._without_result(ending)
        text = text_of(result)
        if len(text) >= SHORTEST_CUT_STRING:
            text = self._job.redactor.redact_cut_off(text)
        if not is_success(result):
            fault = judge(result, transcript.api_error, limit_reached=transcript.limit_reached)
            if fault.over_budget and self._job.run.max_cost_usd:
                sentence = f"Claude reached the run's cost limit of ${self._job.run.max_cost_usd}."
                fault = replace(fault, sentence=sentence)
            return self._failed(ending, fault, text)
        if not transcript.server_connected:
            return self._failed(ending, self._no_server(), text)
        parked = self._job.parked(deferred_in(result))
        if parked is not None:
            return replace(self._known(ending), status=WAITING, approval=parked)
        fault_of_success = flaw(result)
        if fault_of_success is not None:
            return self._failed(ending, fault_of_success, text)
        success = replace(self._known(ending), status=SUCCEEDED, short_message=text)
        schema = self._job.run.output_schema
        if schema is None:
            return success
        found = result.get("structured_output", ABSENT)
        return output.settle(success, schema, found, self._job.redactor)

    def _no_server(self) -> Fault:
        status = self._transcript.server_status
        return Fault(INFRA, f"Claude was not connected to the run's MCP server ({status}).")

    def _without_result(self, ending: Ending) -> Outcome:
        if ending.stopped_by is StopReason.SILENT:
            sentence = f"Claude was silent for {self._silence_seconds:g} s and was stopped."
        elif ending.stopped_by is StopReason.NOT_BEGUN:
            sentence = f"Claude did not begin within {START_SECONDS:g} s and was stopped."
        else:
            sentence = f"Claude {ending.description} without a result."
            if not self._transcript.begun:
                # A claude that does not know the worker's options ends so, and so does another program.
                sentence += " It told nothing at all: see `pipedai-worker doctor`."
        fault = Fault(INFRA, sentence, rate_limited=self._transcript.limit_reached)
        return self._failed(ending, fault, self._said)

    def _failed(self, ending: Ending, fault: Fault, details: str) -> Outcome:
        sentence, now = fault.sentence, time.time()
        limit = self._transcript.usage_limit(now) if fault.rate_limited else None
        if limit is not None:
            sentence += f" It is lifted at {iso(limit.resets_at, 'seconds')}."
        return replace(
            self._known(ending),
            fault_class=fault.fault_class,
            short_message=sentence,
            error_message=f"{sentence}\n{details}",
            usage_limit=limit,
            retry_after_seconds=None if limit is None else limit.resets_at - now,
        )

    def _known(self, ending: Ending) -> Outcome:
        """Return an outcome with all that claude told of the run, such as the cost. Its status is `failed` at first."""
        transcript = self._transcript
        return Outcome(
            FAILED,
            exit_code=ending.exit_code,
            tokens=transcript.tokens,
            cost_usd=transcript.cost_usd,
            num_turns=transcript.num_turns,
            session_id=transcript.session_id,
            model=transcript.model,
            denied=transcript.denied,
        )
