"""Makes up what claude would tell of a model: an output that fits a schema, its tokens and its failures."""

from __future__ import annotations

from typing import Any, NamedTuple


def sample(schema: Any) -> Any:
    """Return a value of the type that the schema asks for, with every property that the schema lists."""
    schema = schema if isinstance(schema, dict) else {}
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: sample(each) for name, each in (schema.get("properties") or {}).items()}
    simple = {"array": [], "string": "scripted", "integer": 1, "number": 1, "boolean": True}
    return simple.get(kind)


# The tokens that each message of the model is said to use. The constant below them is its cost in US dollars.
INPUT, OUTPUT, CACHE_READ, CACHE_CREATION = 12, 34, 56, 78
COST_USD = 0.0123


class Usage:
    """The tokens and the cost of `messages` messages of the model, which all count the same."""

    def __init__(self) -> None:
        self.messages = 0

    @property
    def cost(self) -> float:
        return round(self.messages * COST_USD, 6)

    def of_message(self) -> dict[str, Any]:
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
        """Return the field `modelUsage` of a `result` event. It is empty if there was no message."""
        if not self.messages:
            return {}
        usage = {
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
        return {model: usage}


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


CUT = "cut"


class ApiError(NamedTuple):
    """A failure of the model's API. `status` is None without an answer; `kind` is claude's word, `type` the API's."""

    status: int | None
    kind: str
    type: str | None
    # The kind of error that the real claude names in its event `api_retry`; None for an error after which it does not
    # call the API again. The field `retries`, below, is how often it does; None means as often as its settings allow.
    retried_as: str | None = None
    retries: int | None = None
    reason: str = "api_error"

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields that claude's message and result have about the failure, besides its kind."""
        if self.status is None:
            return {"api_error": "connection_failed"}
        return {"api_error_status": self.status, "api_error_type": self.type}


_NAMED = {
    401: ApiError(401, "authentication_failed", "authentication_error", "authentication_failed", 2),
    403: ApiError(403, "authentication_failed", "permission_error"),
    404: ApiError(404, "model_not_found", "not_found_error"),
    413: ApiError(413, "invalid_request", "request_too_large", reason="image_error"),
    429: ApiError(429, "rate_limit", "rate_limit_error", "rate_limit"),
    529: ApiError(529, "server_error", "overloaded_error", "overloaded"),
}


def named(what: str) -> ApiError:
    """Return the failure with this HTTP status, or for `cut` that of a connection that is cut. Raises ValueError."""
    if what == CUT:
        return ApiError(None, "server_error", None, "unknown")
    status = int(what)
    if status in _NAMED:
        return _NAMED[status]
    if status >= 500:
        return ApiError(status, "server_error", "api_error", "server_error")
    return ApiError(status, "unknown", "invalid_request_error")
