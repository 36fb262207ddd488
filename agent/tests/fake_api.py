"""A small API over real sockets: SPEC §6's state machine for one worker, and faults on demand."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
DROP = "drop"  # a fault: carry the request out, then cut the connection without an answer


@dataclass
class FakeRun:
    """One run as the API knows it."""

    prompt: str = "Say hello."
    id: str = field(default_factory=lambda: str(uuid4()))
    mcp_url: str = "https://mcp.example.com/mcp"
    mcp_headers: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    timeout_seconds: float = 60
    payload: Any = None
    attempt: int = 1
    status: str = "queued"
    claim_id: str | None = None
    cancel_requested: bool = False
    outcome: dict[str, Any] | None = None
    history: list[str] = field(default_factory=list)

    def handed_out(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "triggerId": str(uuid4()),
            "triggerName": "Nightly report",
            "prompt": self.prompt,
            "mcpUrl": self.mcp_url,
            "mcpHeaders": self.mcp_headers,
            "model": self.model,
            "timeoutSeconds": self.timeout_seconds,
            "payload": self.payload,
            "attempt": self.attempt,
            "queuedAt": now().isoformat(),
            "somethingNewer": True,
        }

    def shown(self) -> dict[str, Any]:
        return {"id": self.id, "status": self.status, "cancelRequested": self.cancel_requested}


@dataclass
class Fault:
    """What to do to the next `times` requests of one kind: answer with `status` and `body`."""

    status: int | str
    times: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class FakeApi:
    """Serves one worker. Everything is guarded by `lock`; tests wait with `until()`."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.worker_id = str(uuid4())
        self.worker_token = "wkt_" + "A" * 49
        self.registration_token = "wrk_" + "B" * 49
        self.capacity = 1
        self.lease_seconds = 30.0
        self.long_polls = True
        self.clock_ahead = timedelta()
        self.runs: dict[str, FakeRun] = {}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.closing = False

    def add(self, prompt: str = "Say hello.", **fields: Any) -> FakeRun:
        run = FakeRun(prompt, **fields)
        with self.lock:
            self.runs[run.id] = run
            self.lock.notify_all()
        return run

    def fail(self, kind: str, status: int | str, times: int = 1, **rest: Any) -> None:
        with self.lock:
            self.faults[kind].append(Fault(status, times, **rest))

    def cancel(self, run: FakeRun) -> None:
        with self.lock:
            run.cancel_requested = True

    def count(self, kind: str) -> int:
        with self.lock:
            return sum(call[0] == kind for call in self.calls)

    def until(self, what: Callable[[], Any], seconds: float = 15.0) -> Any:
        """Wait for something to be true of the API."""
        deadline = time.monotonic() + seconds
        with self.lock:
            while not (value := what()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {seconds} s; calls: {self._summary()}")
                self.lock.wait(min(left, 0.5))
            return value

    def until_ended(self, run: FakeRun, seconds: float = 15.0) -> dict[str, Any]:
        """Wait for a run's end; its reported outcome."""
        self.until(lambda: run.status in TERMINAL, seconds)
        return run.outcome or {}

    def _summary(self) -> list[str]:
        return [f"{kind} {run_id[:8]}" for kind, run_id, _ in self.calls[-20:]]

    # --- The endpoints ---------------------------------------------------------------------------

    def answer(self, method: str, url: str, headers: Any, body: dict[str, Any]) -> Any:
        """`(status, body, headers)`, or DROP."""
        parts = urlsplit(url)
        kind, run_id = route(method, parts.path)
        with self.lock:
            self.calls.append((kind, run_id, body))
            self.headers.append(dict(headers.items()))
            self.lock.notify_all()
            fault = self._next_fault(kind)
            if fault and fault.status != DROP:
                return fault.status, fault.body or {"error": "As scripted."}, fault.headers
            status, answer = self._honest(kind, run_id, headers, body, parse_qs(parts.query))
            self.lock.notify_all()
            return DROP if fault else (status, answer, {})

    def _next_fault(self, kind: str) -> Fault | None:
        for fault in self.faults[kind]:
            if fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _honest(
        self, kind: str, run_id: str, headers: Any, body: Any, query: Any
    ) -> tuple[int, Any]:
        if kind == "health":
            return 200, {"status": "ok"}
        if kind == "register":
            return self._register(body)
        if kind == "unknown":
            return 404, {"error": "Not found"}
        if headers.get("Authorization") != f"Bearer {self.worker_token}":
            return 401, {"error": "The token is not valid."}
        if kind == "poll":
            return self._poll(float(query.get("wait", ["0"])[0]))
        run = self.runs.get(run_id)
        if run is None:
            return 404, {"error": "Not found"}
        answer: tuple[int, Any] = getattr(self, f"_{kind}")(run, body)
        return answer

    def _register(self, body: Any) -> tuple[int, Any]:
        if body.get("token") != self.registration_token:
            return 401, {"error": "The registration token is not valid."}
        self.registration_token = "used"
        return 201, {
            "workerId": self.worker_id,
            "workerToken": self.worker_token,
            "workspaceId": str(uuid4()),
            "environmentId": str(uuid4()),
        }

    def _poll(self, wait: float) -> tuple[int, Any]:
        deadline = time.monotonic() + (wait if self.long_polls else 0)
        while True:
            held = sum(run.status in {"claimed", "running"} for run in self.runs.values())
            due = [run for run in self.runs.values() if run.status == "queued"]
            due = due[: max(0, self.capacity - held)]
            left = deadline - time.monotonic()
            if due or left <= 0 or self.closing:
                time_now = (now() + self.clock_ahead).isoformat().replace("+00:00", "Z")
                return 200, {"runs": [run.handed_out() for run in due], "serverTime": time_now}
            self.lock.wait(min(left, 0.5))

    def _claim(self, run: FakeRun, body: Any) -> tuple[int, Any]:
        if run.status == "claimed" and run.claim_id == body.get("claimId"):
            return 200, run.shown()
        return self._move(run, {"queued"}, "claimed", claim_id=body.get("claimId"))

    def _start(self, run: FakeRun, body: Any) -> tuple[int, Any]:
        return self._move(run, {"claimed", "running"}, "running")

    def _heartbeat(self, run: FakeRun, body: Any) -> tuple[int, Any]:
        if run.status not in {"claimed", "running"}:
            return 409, {"error": f"The run is {run.status}.", "status": run.status}
        expires = now() + self.clock_ahead + timedelta(seconds=self.lease_seconds)
        return 200, {**run.shown(), "leaseExpiresAt": expires.isoformat().replace("+00:00", "Z")}

    def _complete(self, run: FakeRun, body: Any) -> tuple[int, Any]:
        if run.status == body.get("status"):
            return 200, run.shown()
        if body.get("status") == "canceled" and not run.cancel_requested:
            return 409, {"error": "No cancel was requested.", "status": run.status}
        return self._move(run, {"claimed", "running"}, body["status"], outcome=body)

    def _move(
        self, run: FakeRun, sources: set[str], target: str, **changes: Any
    ) -> tuple[int, Any]:
        if run.status not in sources:
            return 409, {"error": f"The run is {run.status}.", "status": run.status}
        if run.status != target:
            run.history.append(target)
        run.status = target
        for name, value in changes.items():
            setattr(run, name, value)
        return 200, run.shown()


def now() -> datetime:
    return datetime.now(timezone.utc)


def route(method: str, path: str) -> tuple[str, str]:
    """What a request is about: its kind, and the run it names."""
    if (method, path) == ("GET", "/api/v1/health"):
        return "health", ""
    if (method, path) == ("POST", "/api/v1/workers/register"):
        return "register", ""
    if method == "GET" and re.fullmatch(r"/api/v1/workers/[0-9a-f-]{36}/poll", path):
        return "poll", ""
    match = re.fullmatch(
        r"/api/v1/workers/[0-9a-f-]{36}/runs/([0-9a-f-]{36})/(claim|start|heartbeat|complete)", path
    )
    return (match.group(2), match.group(1)) if match and method == "POST" else ("unknown", "")


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve({})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self._serve(json.loads(self.rfile.read(length) or b"{}"))

        def _serve(self, body: dict[str, Any]) -> None:
            answer = api.answer(self.command, self.path, self.headers, body)
            if answer == DROP:
                self.close_connection = True
                return
            status, content, headers = answer
            is_json = not isinstance(content, str)
            data = (json.dumps(content) if is_json else content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if is_json else "text/html")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A worker that was killed leaves broken connections: nothing to say."""


@contextmanager
def serving(api: FakeApi, port: int = 0) -> Iterator[str]:
    """The API's URL while it is served."""
    server = _Server(("127.0.0.1", port), _handler(api))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        with api.lock:
            api.closing = True
            api.lock.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
