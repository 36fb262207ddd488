"""Serves the product, and writes down each time that a waiting poll asks the view.

The file that the environment variable BENCH_ASKS names gets a line for each: the time by `time.monotonic()`, the
worker's id, and how often its poll has asked by then.
"""

import os
import time
from typing import Any

from pipedai import wsgi
from pipedai.server.ticket import POLL, PollTicket

_file = os.open(os.environ["BENCH_ASKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_answer = wsgi.application


def _counting(environ: dict[str, Any], start_response: Any) -> Any:
    ticket = environ.get("asgi.scope", {}).get(POLL)
    if isinstance(ticket, PollTicket):
        os.write(_file, f"{time.monotonic()} {ticket.worker_id} {ticket.asked}\n".encode())
    return _answer(environ, start_response)


wsgi.application = _counting  # type: ignore[assignment]

# This import builds the server's lanes around the application above.
from pipedai.asgi import application  # noqa: E402

__all__ = ["application"]
