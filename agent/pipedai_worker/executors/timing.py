"""Bounds how long claude waits for the model's API and for the MCP server, in view of the run's time limit."""

from __future__ import annotations

# Claude waits before it tries again: half a second first, then twice as long each time, up to this.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 32.0
FEWEST_RETRIES, MOST_RETRIES = 2, 10
SHORTEST_CALL_SECONDS, LONGEST_CALL_SECONDS = 15.0, 360.0
# An answer that has begun may pause for so long. The model's API sends something at least every few seconds.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 180.0
# The gateway answers at once, because it has reached the server before.
CONNECT_MILLISECONDS = 30_000


def variables(timeout_seconds: float) -> dict[str, str]:
    """Return claude's variables for a run with this time limit.

    A quarter of the limit goes to waits between tries, and to a try that gets no answer, so that claude says that
    the API fails before the worker stops it.
    """
    share = timeout_seconds / 4
    call = min(max(share, SHORTEST_CALL_SECONDS), LONGEST_CALL_SECONDS)
    pause = min(max(share, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return {
        "CLAUDE_CODE_MAX_RETRIES": str(_retries(share)),
        "API_TIMEOUT_MS": str(round(call * 1000)),
        # The limit above is for the beginning of an answer, and these are for each pause in it, after which claude asks
        # again. Claude heeds the first one only with Anthropic's own API. With others its limit is 5 minutes.
        "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(round(pause * 1000)),
        "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
        # Claude begins only when it is connected to the MCP server, or knows that it can't be.
        "MCP_CONNECTION_NONBLOCKING": "0",
        "MCP_TIMEOUT": str(CONNECT_MILLISECONDS),
        "MCP_CONNECT_TIMEOUT_MS": str(CONNECT_MILLISECONDS),
        # A call of a tool may take as long as the run.
        "MCP_TOOL_TIMEOUT": str(round(timeout_seconds * 1000)),
    }


def _retries(seconds: float) -> int:
    waited, wait = 0.0, FIRST_WAIT_SECONDS
    for count in range(MOST_RETRIES):
        waited += wait
        if waited > seconds:
            return max(count, FEWEST_RETRIES)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
    return MOST_RETRIES
