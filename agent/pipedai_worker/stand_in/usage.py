"""Counts what the stand-in's model messages would have used, and tells it as claude's results do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Every message of the model uses so many tokens, and costs so many US dollars.
INPUT, OUTPUT, CACHE_READ, CACHE_CREATION = 12, 34, 56, 78
COST_USD = 0.0123


@dataclass
class Usage:
    """A number of messages of one model."""

    messages: int = 0

    @property
    def cost(self) -> float:
        """The cost in US dollars."""
        return round(self.messages * COST_USD, 6)

    def of_message(self) -> dict[str, Any]:
        """Return the `usage` of one message, which is told when the message begins."""
        return {
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "cache_read_input_tokens": CACHE_READ,
            "cache_creation_input_tokens": CACHE_CREATION,
        }

    def of_result(self) -> dict[str, Any]:
        """Return the `usage` of a result."""
        tokens = {name: self.messages * each for name, each in self.of_message().items()}
        return {
            **tokens,
            **_DETAILS,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
            "inference_geo": "",
            "iterations": [],
            "speed": "standard",
        }

    def of_model(self, model: str) -> dict[str, Any]:
        """Return the same as a result's `modelUsage`; it is empty without any message."""
        if not self.messages:
            return {}
        told = {
            "inputTokens": self.messages * INPUT,
            "outputTokens": self.messages * OUTPUT,
            "cacheReadInputTokens": self.messages * CACHE_READ,
            "cacheCreationInputTokens": self.messages * CACHE_CREATION,
            "cacheCreationEphemeral1hInputTokens": 0,
            "cacheCreationEphemeral5mInputTokens": 0,
            "thinkingTokens": 0,
            "webSearchRequests": 0,
            "costUSD": self.cost,
            "contextWindow": 200_000,
            "maxOutputTokens": 32_000,
            "canonicalModel": model,
            "provider": "standIn",
            "costBasis": "list",
        }
        return {model: told}


def of_no_model() -> dict[str, Any]:
    """Return the `usage` of a message that claude itself wrote."""
    nothing = dict.fromkeys(Usage().of_message(), 0)
    unknown = ("output_tokens_details", "service_tier", "inference_geo", "iterations", "speed")
    return {**nothing, **_DETAILS, **dict.fromkeys(unknown)}


_DETAILS = {
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
    "fallback_credit": None,
}
