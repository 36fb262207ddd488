"""Writes the one log line of each request."""

import logging
from collections.abc import Callable
from typing import Any

from pipedai.logs import log_line
from pipedai.server.headers import PROBES

# The key of a dict in each request's ASGI scope. What the application puts into that dict is added to the request's log
# line.
LOG = "pipedai.log"

# The status that is logged when a client closes the connection before there is an answer. nginx uses the same number.
CLIENT_GONE = 499

_LONGEST_PATH = 300

# The routes of the probes. A route has no slash at its beginning.
_PROBES = frozenset(path.removeprefix("/") for path in PROBES)

# Functions that are called for every request with its method, its route (None if none matched), its status and its
# seconds.
observers: list[Callable[[str | None, str | None, int, float], None]] = []


def log_request(
    *,
    status: int,
    seconds: float,
    body_bytes: int,
    client: str,
    method: str | None = None,
    path: str = "",
    **more: Any,
) -> None:
    """`path` comes without its query, which may be private. Without `method` the request could not be parsed."""
    for observe in observers:
        observe(method, more.get("route"), status, seconds)
    said = {
        "method": method,
        "path": path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…",
        # A text log would show an HTTPStatus by its name, so this makes it a number.
        "status": int(status),
        "duration_ms": round(seconds * 1000, 1),
        "bytes": body_bytes,
        "client": client,
        **more,
    }
    level = _level(status, more)
    named = {name: value for name, value in said.items() if value is not None and value != ""}
    log_line("pipedai.access", level, "request", named)


def _level(status: int, said: dict[str, Any]) -> int:
    if status >= 500:
        return logging.ERROR
    # Successful probes, polls that returned no run, and calls that stored events of a run are frequent, so they are
    # logged at level DEBUG only.
    if status == 200 and (
        said.get("route") in _PROBES or said.get("runs") == 0 or "events" in said
    ):
        return logging.DEBUG
    return logging.INFO
