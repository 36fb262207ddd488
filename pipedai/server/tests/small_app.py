"""A small WSGI application behind the real server, for tests that start gunicorn."""

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings

from pipedai.server import worker
from pipedai.server.event_stream import EventStreams
from pipedai.server.lanes import Lanes, PermitLane, WsgiLane
from pipedai.server.listen import Listener, connect
from pipedai.server.long_poll import AskingLane, LongPoll
from pipedai.server.memory_budget import MemoryBudget
from pipedai.server.outer import Limits, Outer
from pipedai.server.request_scope import parse_networks
from pipedai.server.ticket import POLL
from pipedai.server.turns import Turns

# Tests that wait for this deadline shorten it.
worker.HEADER_SECONDS = float(os.environ.get("HEADER_SECONDS", worker.HEADER_SECONDS))
worker.STALL_SECONDS = float(os.environ.get("PACE_SECONDS", worker.STALL_SECONDS))
worker.STOP_HEADER_SECONDS = float(
    os.environ.get("STOP_HEADER_SECONDS", worker.STOP_HEADER_SECONDS)
)
BODY_SECONDS = float(os.environ.get("BODY_SECONDS", "60"))

Environ = dict[str, Any]


def wsgi(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Echo the body, crash, answer slowly, or act as a poll that never has any runs, depending on the path."""
    path = environ["PATH_INFO"]
    if path == "/api/v1/crash":
        raise RuntimeError("a crash that nobody may read about")
    if path == "/api/v1/slow":
        time.sleep(1.5)
    if path == "/api/v1/large":
        start_response("200 OK", [("Content-Type", "application/json")])
        pieces = int(environ["QUERY_STRING"] or 200)
        return (b"[" + b" " * 65_536 + b"]" for _ in range(pieces))
    ticket = environ["asgi.scope"].get(POLL)
    if ticket is not None:
        ticket.wait_seconds = 30.0
        ticket.empty = True
    body = json.dumps(
        {
            "path": path,
            "query": environ["QUERY_STRING"],
            "body": environ["wsgi.input"].read().decode(),
            "headers": {k: v for k, v in environ.items() if k.startswith(("HTTP_", "CONTENT_"))},
            "address": environ["REMOTE_ADDR"],
            "scheme": environ["wsgi.url_scheme"],
        }
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


def _application() -> Outer:
    threads = WsgiLane(wsgi, threads=2)
    listener = Listener(connect)
    long_poll = LongPoll(threads, listener, turns=1)
    streams = EventStreams(threads, listener, turns=1)
    passwords, asking = PermitLane(threads, Turns(1)), AskingLane(threads, listener, turns=1)
    return Outer(
        Lanes(threads, long_poll, streams, passwords, passwords, asking, (listener.run,)),
        limits=Limits(body_bytes=settings.MAX_BODY_BYTES, body_seconds=BODY_SECONDS),
        trusted_proxies=parse_networks(settings.TRUSTED_PROXIES),
        production=settings.PRODUCTION,
        budget=MemoryBudget(int(os.environ.get("MEMORY_BUDGET_MIB", "48"))),
    )


application = _application()
