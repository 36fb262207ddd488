"""Reads and adds up the numbers of tokens that the model's API reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipedai_worker.numbers import whole


@dataclass(frozen=True)
class Tokens:
    """How many tokens of a model one message, several messages, or a whole run used."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0

    @classmethod
    def read(cls, usage: Any) -> Tokens | None:
        """Read a `usage` object of the model's API; a missing number counts as 0. Return None if it is no object."""
        if not isinstance(usage, dict):
            return None
        return cls(
            whole(usage.get("input_tokens")) or 0,
            whole(usage.get("output_tokens")) or 0,
            whole(usage.get("cache_read_input_tokens")) or 0,
            whole(usage.get("cache_creation_input_tokens")) or 0,
        )

    @classmethod
    def read_model(cls, usage: Any) -> Tokens:
        """Read one model's entry of claude's `modelUsage`. A number that is missing or not a whole one counts as 0."""
        if not isinstance(usage, dict):
            return cls()
        return cls(
            whole(usage.get("inputTokens")) or 0,
            whole(usage.get("outputTokens")) or 0,
            whole(usage.get("cacheReadInputTokens")) or 0,
            whole(usage.get("cacheCreationInputTokens")) or 0,
        )

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_creation + other.cache_creation,
        )
