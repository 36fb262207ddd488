"""Bounds how long claude waits for the model's API and for the MCP server, in view of the run's time limit."""

from __future__ import annotations

# After a failed call of the model's API, claude waits before it calls again: half a second at first, then twice as long
# each time, up to 32 s.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 32.0
FEWEST_RETRIES, MOST_RETRIES = 2, 10
SHORTEST_CALL_SECONDS, LONGEST_CALL_SECONDS = 15.0, 360.0
# The bounds for the pause that claude accepts inside an answer of the model's API. The API sends something at least
# every few seconds.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 180.0
# How long claude may take to connect to the MCP server. It connects to the worker's gateway on this machine, which
# answers at once.
CONNECT_MILLISECONDS = 30_000


def variables(timeout_seconds: float) -> dict[str, str]:
    """Return the environment variables that limit how long claude waits, for a run with this time limit.

    A quarter of the run's limit is for claude's pauses between its attempts to call the model's API, and another
    quarter is for one attempt that gets no answer. Claude can thus report that the API fails before the worker stops
    the run.
    """
    share = timeout_seconds / 4
    call = min(max(share, SHORTEST_CALL_SECONDS), LONGEST_CALL_SECONDS)
    pause = min(max(share, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return {
        "CLAUDE_CODE_MAX_RETRIES": str(_retries(share)),
        "API_TIMEOUT_MS": str(round(call * 1000)),
        # API_TIMEOUT_MS limits the wait until an answer begins. The variables below limit each pause inside an answer,
        # after which claude calls again. Claude heeds CLAUDE_ENABLE_BYTE_WATCHDOG only with Anthropic's own API. With
        # other APIs its limit for a pause is 5 minutes.
        "CLAUDE_ENABLE_BYTE_WATCHDOG": "1",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(round(pause * 1000)),
        "CLAUDE_ENABLE_STREAM_WATCHDOG": "1",
        # With 0, claude begins to work only when it has connected to the MCP server, or when connecting has failed.
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
