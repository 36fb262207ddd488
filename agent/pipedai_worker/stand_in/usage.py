"""Counts what the stand-in's messages would have used of a model, and tells it in the form of claude's results."""

from __future__ import annotations

from typing import Any

# The tokens that each message of the model is said to use. The constant below them is its cost in US dollars.
INPUT, OUTPUT, CACHE_READ, CACHE_CREATION = 12, 34, 56, 78
COST_USD = 0.0123


class Usage:
    """The tokens and the cost of `messages` messages of the model, which all count the same."""

    def __init__(self) -> None:
        self.messages = 0

    @property
    def cost(self) -> float:
        """Return the cost of all the messages, in US dollars."""
        return round(self.messages * COST_USD, 6)

    def of_message(self) -> dict[str, Any]:
        """Return the field `usage` of a single message."""
        return {
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "cache_read_input_tokens": CACHE_READ,
            "cache_creation_input_tokens": CACHE_CREATION,
        }

    def of_result(self) -> dict[str, Any]:
        """Return the field `usage` of a `result` event, which adds up all the messages."""
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
        """Return the field `modelUsage` of a `result` event, which has the model's numbers under the model's name.

        It is empty if there was no message.
        """
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
    """Return the field `usage` of a message that claude itself wrote, without a model: all numbers are 0."""
    nothing = dict.fromkeys(Usage().of_message(), 0)
    unknown = ("output_tokens_details", "service_tier", "inference_geo", "iterations", "speed")
    return {**nothing, **_DETAILS, **dict.fromkeys(unknown)}


_DETAILS = {
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
    "fallback_credit": None,
}
