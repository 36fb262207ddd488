"""An API of a test's own that shows the events of one run: in pages, and as streams that it may cut."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "pwk_" + "C" * 49
PAGE = 200
WHY_NONE = "The run has no events, because it is a test's."


class EventShow:
    """`parts` says what each stream sends: how many events, and whether it then says that the run has ended."""

    def __init__(self, events: list[dict[str, Any]], *parts: tuple[int, bool]) -> None:
        self.events = events
        self.parts = list(parts)
        self.refused = 0
        # The header Last-Event-ID of each stream.
        self.opened: list[str | None] = []

    def stream(self, last_id: str | None) -> bytes | None:
        """Return what the next stream sends, or None if it has nothing (204)."""
        self.opened.append(last_id)
        if not self.parts:
            return None
        count, ends = self.parts.pop(0)
        after = int(last_id or 0)
        sent = self.events[after : after + count]
        told = [f"id: {event['seq']}\ndata: {json.dumps(event)}\n\n" for event in sent]
        # A reader that has a cut event would take half of it for whole.
        told += ['event: end\ndata: {"status": "succeeded"}\n\n' if ends else "data: {"]
        return b": events\n\n" + "".join(told).encode()


class _Handler(BaseHTTPRequestHandler):
    show: EventShow

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._send(401, {"error": "The key is not valid.", "code": "invalid_token"})
        elif self.show.refused:
            self._send(self.show.refused, {"error": "Not found", "code": "not_found"})
        elif parts.path.endswith("/stream"):
            self._stream()
        else:
            after = int(parse_qs(parts.query)["after"][0])
            items = self.show.events[after : after + PAGE]
            why = None if self.show.events else WHY_NONE
            self._send(200, {"items": items, "lastSeq": 9, "whyNone": why})

    def _stream(self) -> None:
        told = self.show.stream(self.headers["Last-Event-ID"])
        if told is None:
            self.send_response(204)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for start in range(0, len(told), 7):
            self.wfile.write(told[start : start + 7])

    def _send(self, status: int, content: Any) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(show: EventShow) -> Iterator[str]:
    """Serve the events, and yield the URL of the API."""
    handler = type("Handler", (_Handler,), {"show": show})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
