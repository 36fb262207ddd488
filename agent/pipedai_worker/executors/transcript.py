"""What claude's event stream tells about one run, gathered as it comes."""

from __future__ import annotations

import time
from typing import Any

from pipedai_worker.executors.faults import error_kind
from pipedai_worker.numbers import number, whole
from pipedai_worker.tokens import Tokens

# Events that belong to a turn; others may trail a turn's result.
TURN_TYPES = frozenset({"assistant", "user", "stream_event", "tool_progress"})
# Claude marks messages that it made itself with this model.
SYNTHETIC_MODEL = "<synthetic>"
# A time later than this is in milliseconds.
LATEST_SECONDS = 100_000_000_000
# No limit lasts longer than a month.
LONGEST_RESET_SECONDS = 31 * 86_400.0


class Transcript:
    """Feed it every event with `take()`; everything else is read from it."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.model: str | None = None
        # The kind of API error that claude's own last message named.
        self.api_error: str | None = None
        self.cost_usd: float | None = None
        self.num_turns: int | None = None
        # The result that decides: the first failed one, else the last.
        self.result: dict[str, Any] | None = None
        # When the result came, unless claude has begun another turn since.
        self.finished_at: float | None = None
        self._result_tokens: Tokens | None = None
        self._message_tokens: dict[str, Tokens] = {}
        self._limits: dict[str, float | None] = {}

    @property
    def tokens(self) -> Tokens | None:
        """The results' own count; before there is one, what the messages tell."""
        if self._result_tokens is None and self._message_tokens:
            return sum(self._message_tokens.values(), Tokens())
        return self._result_tokens

    @property
    def limit_reached(self) -> bool:
        """Whether the host's usage limit was reported as used up."""
        return bool(self._limits)

    def seconds_until_reset(self, now: float) -> float | None:
        """From `now` (epoch seconds) until the last of the reached limits is lifted, if known."""
        resets = [reset for reset in self._limits.values() if reset is not None]
        return min(max(0.0, max(resets) - now), LONGEST_RESET_SECONDS) if resets else None

    def take(self, event: dict[str, Any]) -> None:
        """One event of the stream; an unknown one changes nothing."""
        kind = str(event.get("type"))
        session = event.get("session_id")
        if isinstance(session, str) and session:
            self.session_id = session
        if kind in TURN_TYPES:
            self.finished_at = None
        if kind == "system" and event.get("subtype") == "init":
            self._learn_model(event.get("model"))
        elif kind == "assistant":
            self._take_message(event)
        elif kind == "rate_limit_event":
            self._take_limit(event.get("rate_limit_info"))
        elif kind == "error":
            self.api_error = error_kind(event)
        elif kind == "result":
            self._take_result(event)

    def _learn_model(self, model: Any) -> None:
        if isinstance(model, str) and model and model != SYNTHETIC_MODEL:
            self.model = model

    def _take_message(self, event: dict[str, Any]) -> None:
        message = event.get("message")
        if not isinstance(message, dict):
            return
        # One message may come in several events, each with what is known of its usage by then.
        identifier = message.get("id")
        tokens = Tokens.read(message.get("usage"))
        if isinstance(identifier, str) and tokens is not None:
            self._message_tokens[identifier] = tokens
        if event.get("parent_tool_use_id") is None:
            # A sub-agent's errors are not the run's own.
            self._learn_model(message.get("model"))
            self.api_error = error_kind(event)

    def _take_limit(self, info: Any) -> None:
        if not isinstance(info, dict):
            return
        name = str(info.get("rateLimitType"))
        overage = str(info.get("overageStatus")).startswith("allowed")
        if info.get("status") != "rejected" or overage:
            self._limits.pop(name, None)
            return
        reset = number(info.get("resetsAt"))
        self._limits[name] = reset / 1000 if reset and reset > LATEST_SECONDS else reset

    def _take_result(self, result: dict[str, Any]) -> None:
        """Work in the background may wake claude for further turns, each with its own result."""
        self.finished_at = time.monotonic()
        # The session's cost so far, but this turn's tokens and turns.
        cost = number(result.get("total_cost_usd"))
        self.cost_usd = self.cost_usd if cost is None else cost
        turns = whole(result.get("num_turns"))
        if turns is not None:
            self.num_turns = (self.num_turns or 0) + turns
        tokens = Tokens.read(result.get("usage"))
        if tokens is not None:
            self._result_tokens = (self._result_tokens or Tokens()) + tokens
        if self.result is None or is_success(self.result):
            self.result = result


def is_success(result: dict[str, Any]) -> bool:
    """Whether a result event says that all went well. An API error has subtype `success` too."""
    return result.get("subtype", "success") == "success" and result.get("is_error") is False


def text_of(result: dict[str, Any]) -> str:
    """What the result says to people: its final text, else its list of errors."""
    text = result.get("result")
    if isinstance(text, str) and text:
        return text
    errors = result.get("errors")
    if isinstance(errors, list):
        return "\n".join(error for error in errors if isinstance(error, str))
    return ""
