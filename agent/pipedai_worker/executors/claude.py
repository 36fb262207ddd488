"""Executes runs with `claude -p`, reads its events, and derives the outcome from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.faults import Fault, judge
from pipedai_worker.executors.launch import launch
from pipedai_worker.executors.tail import Tail
from pipedai_worker.executors.transcript import Transcript, is_success, text_of
from pipedai_worker.mcp import SERVER_NAME
from pipedai_worker.outcome import CLIENT, FAILED, INFRA, SUCCEEDED, Outcome
from pipedai_worker.process import Ending
from pipedai_worker.stopping import StopReason
from pipedai_worker.stream import SHORTEST_CUT_STRING, JsonLines

# After its result, claude has this long to exit by itself.
LINGER_SECONDS = 10.0
STDERR_LENGTH = 4_000

# The variables that claude gets for each way of paying. With a subscription it gets no API key,
# because claude would use the key without saying so.
CREDENTIALS = {
    "claude_max": ("CLAUDE_CODE_OAUTH_TOKEN",),
    "api_key": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
}


class ClaudeExecutor:
    """Runs `argv`: claude, or a program that behaves like it.

    It stops a program that is silent for `silence_seconds`; 0 lets it be silent for ever.
    """

    def __init__(self, argv: Sequence[str], *, auth_mode: str, silence_seconds: float) -> None:
        self._argv = tuple(argv)
        self._silence_seconds = silence_seconds
        self.credentials = CREDENTIALS[auth_mode]

    def execute(self, job: Job) -> Execution:
        """Run one conversation to its end."""
        if job.run.model and job.run.model.startswith("-"):
            return Execution(
                Outcome(FAILED, CLIENT, error_message="The model's name begins with a dash.")
            )
        job.environment["DISABLE_AUTOUPDATER"] = "1"
        program = launch(job, self._command_line(job))
        if isinstance(program, Outcome):
            return Execution(program)
        watch = _Watch(job, self._silence_seconds)
        ending = program.supervise(
            stdout=watch.read,
            stderr=watch.stderr.feed,
            should_stop=watch.should_stop,
            term_grace=job.term_grace,
        )
        return watch.conclude(ending)

    def _command_line(self, job: Job) -> list[str]:
        command_line = [
            *self._argv,
            "-p",
            "--mcp-config",
            str(job.mcp_config),
            "--strict-mcp-config",
            "--output-format",
            "stream-json",
            "--verbose",
            # Nobody is there to grant permissions. This one allows the tools of the run's own server;
            # all others need a permission in this machine's settings.
            "--allowedTools",
            f"mcp__{SERVER_NAME}",
        ]
        if job.run.model:
            command_line += ["--model", job.run.model]
        return command_line


class _Watch:
    """Follows one claude process."""

    def __init__(self, job: Job, silence_seconds: float) -> None:
        self._job = job
        self._silence_seconds = silence_seconds
        self._transcript = Transcript()
        self._lines = JsonLines(self._take)
        self._heard_at = time.monotonic()
        self.stderr = Tail(job.redactor, STDERR_LENGTH)

    def read(self, chunk: bytes) -> None:
        """Take the next piece of stdout."""
        self._heard_at = time.monotonic()
        self._lines.feed(chunk)

    def _take(self, event: dict[str, Any]) -> None:
        self._transcript.take(event)
        kind = event.get("type")
        self._job.told(kind if isinstance(kind, str) else "unknown", event)

    def should_stop(self) -> StopReason | None:
        """Return the job's reason to stop, or one of our own: claude is silent, or does not exit after its result."""
        reason = self._job.should_stop()
        if reason is not None:
            return reason
        now, finished_at = time.monotonic(), self._transcript.finished_at
        if finished_at is not None:
            return StopReason.LINGERING if now - finished_at >= LINGER_SECONDS else None
        if self._silence_seconds and now - self._heard_at >= self._silence_seconds:
            return StopReason.SILENT
        return None

    def conclude(self, ending: Ending) -> Execution:
        """Return the outcome, once the process has ended."""
        self._lines.finish()
        stopped_by = ending.stopped_by
        if self._transcript.finished_at is not None and stopped_by is not StopReason.LOST:
            # Claude had given its result before it was stopped, so the result counts.
            stopped_by = None
        if stopped_by in {None, StopReason.SILENT, StopReason.LINGERING}:
            return Execution(self._outcome(ending))
        return Execution(self._known(ending), stopped_by)

    def _outcome(self, ending: Ending) -> Outcome:
        result = self._transcript.result
        if result is None:
            return self._without_result(ending)
        text = text_of(result)
        if len(text) >= SHORTEST_CUT_STRING:
            text = self._job.redactor.redact_cut_off(text)
        if is_success(result):
            return replace(self._known(ending), status=SUCCEEDED, short_message=text)
        fault = judge(
            result, self._transcript.api_error, limit_reached=self._transcript.limit_reached
        )
        return self._failed(ending, fault, text)

    def _without_result(self, ending: Ending) -> Outcome:
        if ending.stopped_by is StopReason.SILENT:
            sentence = f"Claude was silent for {self._silence_seconds:g} s and was stopped."
        else:
            sentence = f"Claude {ending.description} without a result."
        fault = Fault(INFRA, sentence, rate_limited=self._transcript.limit_reached)
        return self._failed(ending, fault, self.stderr.finish(ending))

    def _failed(self, ending: Ending, fault: Fault, details: str) -> Outcome:
        sentence, now = fault.sentence, time.time()
        wait = self._transcript.seconds_until_reset(now) if fault.rate_limited else None
        if wait is not None:
            reset = datetime.fromtimestamp(now + wait, tz=timezone.utc)
            sentence += f" It is lifted at {reset:%Y-%m-%dT%H:%M:%SZ}."
        return replace(
            self._known(ending),
            fault_class=fault.fault_class,
            short_message=sentence,
            error_message=f"{sentence}\n{details}",
            retry_after_seconds=wait,
        )

    def _known(self, ending: Ending) -> Outcome:
        """Return a failed outcome with what is known about the conversation however it ended."""
        transcript = self._transcript
        return Outcome(
            FAILED,
            exit_code=ending.exit_code,
            tokens=transcript.tokens,
            cost_usd=transcript.cost_usd,
            num_turns=transcript.num_turns,
            session_id=transcript.session_id,
            model=transcript.model,
        )
