"""Follows one claude process by its events, says when to stop it, and derives the outcome and whose fault it is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.claude_names import DEFERRED, SERVER_NAME, TOOL_PREFIX
from pipedai_worker.running.outcome import (
    ABSENT,
    CLIENT,
    FAILED,
    INFRA,
    SUCCEEDED,
    WAITING,
    Fault,
    Outcome,
    Tokens,
    UsageLimit,
    iso,
    settle,
)
from pipedai_worker.running.process import SHORTEST_CUT_STRING, Ending, JsonLines, Tail
from pipedai_worker.running.stopping import StopReason
from pipedai_worker.values import number, whole

# These subtypes mean that the task reached a limit. The same prompt would again, so the client is at fault.
BUDGET_REACHED = "error_max_budget_usd"
CLIENT_SUBTYPES = {
    "error_max_turns": "Claude reached its limit of turns.",
    BUDGET_REACHED: "Claude reached its budget.",
    "error_max_structured_output_retries": "Claude did not produce the output asked for.",
}
CLIENT_REASONS = frozenset(
    {
        *("max_turns", "budget_exhausted", "blocking_limit", "prompt_too_long", "image_error"),
        *("rapid_refill_breaker", "structured_output_retry_exhausted"),
        # A hook in this machine's settings for claude ended the run, and would end it again.
        *("stop_hook_prevented", "hook_stopped", DEFERRED, "tool_deferred_unavailable"),
    }
)
EXECUTION_ERROR = "error_during_execution"
COMPLETED = "completed"
# After these kinds of API error another attempt may succeed. The API and claude name some of them differently.
INFRA_KINDS = frozenset(
    {
        "rate_limit",
        "rate_limit_error",
        "overloaded",
        "overloaded_error",
        "server_error",
        "api_error",
        "timeout",
        "timeout_error",
        "connection_failed",
        "unknown",
    }
)
RATE_LIMIT_KINDS = frozenset({"rate_limit", "rate_limit_error"})
RATE_LIMIT_STATUS, LARGEST_STATUS = 429, 599
# A kind or reason that claude names is cut to this many characters, because it becomes a part of a sentence.
LONGEST_WORD = 200
# After an answer with one of these HTTP statuses, the same request may succeed later.
RETRYABLE_STATUSES = frozenset({408, 409, 425, RATE_LIMIT_STATUS})


def judge(result: dict[str, Any], api_error: str | None, *, limit_reached: bool) -> Fault:
    """Return whose fault a failed result is. `api_error` is the kind of API error that claude named last."""
    subtype = _word(result.get("subtype"))
    if subtype in CLIENT_SUBTYPES:
        sentence = CLIENT_SUBTYPES[subtype]
        return Fault(CLIENT, sentence, over_budget=subtype == BUDGET_REACHED)
    status = result.get("api_error_status")
    # `api_error`, from claude's messages, is used last, because claude's messages call many different errors `unknown`.
    kind = _word(result.get("api_error_type")) or error_kind(result) or api_error
    if limit_reached or status == RATE_LIMIT_STATUS or kind in RATE_LIMIT_KINDS:
        return Fault(INFRA, "Claude's usage limit is reached on the machine.", rate_limited=True)
    if isinstance(status, int) and 400 <= status <= LARGEST_STATUS:
        retryable = status >= 500 or status in RETRYABLE_STATUSES
        named = f" ({kind})" if kind else ""
        return Fault(INFRA if retryable else CLIENT, f"The model's API answered {status}{named}.")
    if kind is not None:
        return Fault(INFRA if kind in INFRA_KINDS else CLIENT, f"The model's API failed: {kind}.")
    reason = _word(result.get("terminal_reason"))
    if reason in CLIENT_REASONS:
        return Fault(CLIENT, f"Claude ended: {reason}.")
    if subtype == EXECUTION_ERROR or subtype is None:
        return Fault(INFRA, "Claude failed while it was at work.")
    return Fault(CLIENT, f"Claude reported an error ({subtype}).")


def flaw(result: dict[str, Any]) -> Fault | None:
    if result.get("num_turns") == 0:
        return Fault(CLIENT, "Claude took the prompt for a command of its own and asked no model.")
    # Claude gives no `terminal_reason` when it defers the same call again after a resume.
    deferred = DEFERRED if result.get("stop_reason") == DEFERRED else None
    reason = _word(result.get("terminal_reason")) or deferred
    if reason in {None, COMPLETED}:
        return None
    if reason in CLIENT_REASONS:
        return Fault(CLIENT, f"Claude ended before its task was done: {reason}.")
    return Fault(INFRA, f"Claude ended before its task was done: {reason}.")


def error_kind(event: dict[str, Any]) -> str | None:
    """Return the kind of API error that an event names: its `error`, or the `type` inside `error`."""
    error = event.get("error")
    if isinstance(error, dict):
        error = error.get("type")
    return _word(error)


def _word(value: Any) -> str | None:
    return value[:LONGEST_WORD] if isinstance(value, str) and value else None


# While claude works it writes events of these types. Events of other types may also come after its result.
TURN_TYPES = frozenset({"assistant", "user", "stream_event", "tool_progress"})
# Claude names this model in messages that it wrote itself, without a model.
SYNTHETIC_MODEL = "<synthetic>"
# Claude normally tells the end of a usage limit in seconds since 1970. A number larger than this is in milliseconds.
LATEST_SECONDS = 100_000_000_000
# A usage limit lasts a month at most. If claude tells a later end of it, this time is used instead.
LONGEST_RESET_SECONDS = 31 * 86_400.0
# Stands for claude's word for a usage limit where it has said none.
UNNAMED_LIMIT = "unknown"
CONNECTED = "connected"
# With one of these statuses of the MCP server claude works on without it. While it is `pending`, claude still tries.
REFUSED = frozenset({"failed", "needs-auth", "disabled"})


class Transcript:
    """Takes every event through `take()`; its attributes hold what the events have told so far."""

    def __init__(self) -> None:
        # True once the program has written an event. A program that is not claude writes none.
        self.begun = False
        # True once claude has begun to work on a prompt. A claude that can't resume a session ends before that.
        self.at_work = False
        self.session_id: str | None = None
        self.model: str | None = None
        # The kind of API error that the last message from claude itself named; None if it named none.
        self.api_error: str | None = None
        self.cost_usd: float | None = None
        self.num_turns: int | None = None
        # The last `result` event. When a command in the background ends, claude goes on, and then gives another one.
        self.result: dict[str, Any] | None = None
        # True while claude has commands that run in the background. When one of them ends, claude goes on working.
        self.in_background = False
        # True if the last event said that claude will call the model's API again, because that failed.
        self.retrying = False
        # What claude said of its connection to the run's MCP server; None if it has said nothing.
        self.server_status: str | None = None
        # The tools of the calls that claude was not permitted, by the call's id.
        self.denied: dict[str, str] = {}
        self._used_server = False
        self._result_at: float | None = None
        self._result_tokens: Tokens | None = None
        self._model_tokens: Tokens | None = None
        self._message_tokens: dict[str, Tokens] = {}
        # The usage limits that are used up, by claude's word for each, with when each is lifted (seconds since 1970).
        self._limits: dict[str, float | None] = {}

    @property
    def tokens(self) -> Tokens | None:
        """Return how many tokens the run has used so far; None if claude has not said."""
        if self._model_tokens is not None:
            return self._model_tokens
        if self._result_tokens is None and self._message_tokens:
            return sum(self._message_tokens.values(), Tokens())
        return self._result_tokens

    @property
    def finished_at(self) -> float | None:
        """Return when claude became ready to end, on the monotonic clock; None while it has something to do."""
        return None if self.in_background else self._result_at

    @property
    def server_connected(self) -> bool:
        """Tell whether claude was connected to the run's MCP server. If claude says nothing about it, return True."""
        return self.server_status in {None, CONNECTED} or self._used_server

    @property
    def server_refused(self) -> bool:
        return self.server_status in REFUSED

    @property
    def limit_reached(self) -> bool:
        return bool(self._limits)

    def usage_limit(self, now: float) -> UsageLimit | None:
        """Return the usage limit that is lifted last, `now` in seconds since 1970; None if claude has not said."""
        known = [(reset, kind) for kind, reset in self._limits.items() if reset is not None]
        if not known:
            return None
        reset, kind = max(known)
        return UsageLimit(min(max(reset, now), now + LONGEST_RESET_SECONDS), kind)

    def take(self, event: dict[str, Any]) -> None:
        self.begun = True
        kind = str(event.get("type"))
        session = event.get("session_id")
        if isinstance(session, str) and session:
            self.session_id = session
        self.retrying = kind == "system" and event.get("subtype") == "api_retry"
        if kind in TURN_TYPES:
            self._result_at = None
        if kind == "system":
            self._take_system(event)
        elif kind == "assistant":
            self._take_message(event)
        elif kind == "rate_limit_event":
            self._take_limit(event.get("rate_limit_info"))
        elif kind == "error":
            self.api_error = error_kind(event)
        elif kind == "result":
            self._take_result(event)

    def _take_system(self, event: dict[str, Any]) -> None:
        subtype = event.get("subtype")
        if subtype == "init":
            # Claude begins to work, or goes on working after a result, so it is not finished.
            self.at_work = True
            self._result_at = None
            self._learn_model(event.get("model"))
            self._learn_server(event.get("mcp_servers"))
        elif subtype == "background_tasks_changed":
            tasks = event.get("tasks")
            if isinstance(tasks, list):
                self.in_background = bool(tasks)
                if self._result_at is not None:
                    # The time that claude has to exit, or to go on working, begins anew.
                    self._result_at = time.monotonic()

    def _learn_server(self, servers: Any) -> None:
        if not isinstance(servers, list):
            return
        self.server_status = "not configured"
        for server in servers:
            if isinstance(server, dict) and server.get("name") == SERVER_NAME:
                self.server_status = str(server.get("status"))

    def _learn_model(self, model: Any) -> None:
        if isinstance(model, str) and model and model != SYNTHETIC_MODEL:
            self.model = model

    def _take_message(self, event: dict[str, Any]) -> None:
        message = event.get("message")
        if not isinstance(message, dict):
            return
        # Claude may write one message in several events, each with the tokens so far, so the last one counts.
        content = message.get("content")
        for block in content if isinstance(content, list) else []:
            if isinstance(block, dict) and str(block.get("name")).startswith(TOOL_PREFIX):
                self._used_server = True
        identifier = message.get("id")
        tokens = Tokens.read(message.get("usage"))
        if isinstance(identifier, str) and tokens is not None:
            self._message_tokens[identifier] = tokens
        if event.get("parent_tool_use_id") is None:
            # Messages of sub-agents are left out, because a sub-agent's error is not an error of the run.
            self._learn_model(message.get("model"))
            self.api_error = error_kind(event)
            params = event.get("api_error_params")
            if isinstance(params, dict):
                # Newer versions of claude repeat here which usage limit has refused the call.
                self._take_limit(params.get("rate_limit_info"))

    def _take_limit(self, info: Any) -> None:
        if not isinstance(info, dict):
            return
        kind = info.get("rateLimitType")
        name = kind if isinstance(kind, str) and kind else UNNAMED_LIMIT
        overage = str(info.get("overageStatus")).startswith("allowed")
        if info.get("status") != "rejected" or overage:
            self._limits.pop(name, None)
            return
        reset = number(info.get("resetsAt"))
        self._limits[name] = reset / 1000 if reset and reset > LATEST_SECONDS else reset

    def _take_result(self, result: dict[str, Any]) -> None:
        self.result, self._result_at = result, time.monotonic()
        turns = whole(result.get("num_turns"))
        if turns is not None:
            self.num_turns = (self.num_turns or 0) + turns
        tokens = Tokens.read(result.get("usage"))
        if tokens is not None:
            self._result_tokens = (self._result_tokens or Tokens()) + tokens
        denials = result.get("permission_denials")
        for denial in denials if isinstance(denials, list) else []:
            if isinstance(denial, dict):
                name = str(denial.get("tool_name"))
                self.denied[str(denial.get("tool_use_id"))] = name.replace(TOOL_PREFIX, "", 1)
        self._take_usage(result)

    def _take_usage(self, result: dict[str, Any]) -> None:
        since = result.get("model_usage_since_last_result")
        if isinstance(since, dict):
            # A session that is resumed brings along its earlier cost and tokens, which an earlier run has reported.
            # Only this field leaves them out, so its values are added up.
            models = [model for model in since.values() if isinstance(model, dict)]
            costs = [number(model.get("costUSD")) or 0.0 for model in models]
            self.cost_usd = (self.cost_usd or 0.0) + sum(costs)
            if models:
                self._model_tokens = (self._model_tokens or Tokens()) + Tokens.of_models(since)
            return
        # A version of claude without that field forgets the earlier cost when it resumes a session. What it tells
        # counts from the start of its process, so the last value holds.
        cost = number(result.get("total_cost_usd"))
        self.cost_usd = self.cost_usd if cost is None else cost
        whole_process = result.get("modelUsage")
        if isinstance(whole_process, dict) and whole_process:
            self._model_tokens = Tokens.of_models(whole_process)


def is_success(result: dict[str, Any]) -> bool:
    """Tell whether a result is a success. Its subtype is not enough: an API error has `success` too."""
    return result.get("subtype", "success") == "success" and result.get("is_error") is False


def text_of(result: dict[str, Any]) -> str:
    text = result.get("result")
    if isinstance(text, str) and text:
        return text
    errors = result.get("errors")
    if isinstance(errors, list):
        return "\n".join(error for error in errors if isinstance(error, str))
    return ""


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
        self.stderr = Tail(job.redactor, STDERR_LENGTH, job.tells("stderr"))

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
                nothing_deferred=self._job.session.deferred and not self._transcript.begun,
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
        if self._job.mcp_url and not transcript.server_connected:
            return self._failed(ending, self._no_server(), text)
        deferred = result.get("deferred_tool_use")
        parked = self._job.parked(deferred.get("id") if isinstance(deferred, dict) else None)
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
        return settle(success, schema, found, self._job.redactor)

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
                # A claude that is too old for the worker's options ends without an event, and so does another program.
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
        """Return an outcome with what claude has said of the run, such as the cost. Its status is `failed` at first."""
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
