"""Gathers what claude's event stream tells about one run."""

from __future__ import annotations

import time
from typing import Any

from pipedai_worker.executors.faults import error_kind
from pipedai_worker.executors.settings import SERVER_NAME, TOOL_PREFIX
from pipedai_worker.reporting.outcome import Tokens, UsageLimit
from pipedai_worker.values import number, whole

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
        """Return how many tokens the run has used so far; None if claude has told nothing of it."""
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
                tokens = sum(map(Tokens.read_model, models), Tokens())
                self._model_tokens = (self._model_tokens or Tokens()) + tokens
            return
        # A version of claude without that field forgets the earlier cost when it resumes a session. What it tells
        # counts from the start of its process, so the last value holds.
        cost = number(result.get("total_cost_usd"))
        self.cost_usd = self.cost_usd if cost is None else cost
        whole_process = result.get("modelUsage")
        if isinstance(whole_process, dict) and whole_process:
            self._model_tokens = sum(map(Tokens.read_model, whole_process.values()), Tokens())


def deferred_in(result: dict[str, Any]) -> object:
    """Return the id of the tool call that a result says claude has deferred; None if there is none."""
    deferred = result.get("deferred_tool_use")
    return deferred.get("id") if isinstance(deferred, dict) else None


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
