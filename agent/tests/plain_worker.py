"""A second correct worker, which uses the standard library only: `plain_worker.py FILE`.

It shares no code with the first one. The conformance kit has to pass it as well.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

FINAL = {400, 401, 403, 404, 409}


class RefusedError(Exception):
    """The API refused a request for good. The argument is the status."""


class StoppedError(Exception):
    """The worker received SIGTERM."""


class Worker:
    def __init__(self, config: Path) -> None:
        registration = json.loads(config.read_text())
        self.address = urlsplit(registration["apiUrl"]).netloc
        self.path = f"/api/v1/workers/{registration['workerId']}"
        self.token = registration["workerToken"]
        self.state = config.with_suffix(".plain")
        self.state.mkdir(exist_ok=True)
        self.stopping = threading.Event()

    def ask(self, method: str, path: str, body: Any = None, attempts: int = 1000) -> Any:
        for attempt in range(attempts):
            delay = min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1)
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                connection = http.client.HTTPConnection(self.address, timeout=40)
                headers = {
                    "Authorization": f"Bearer {self.token}",
                    "Content-Type": "application/json",
                }
                sent = None if body is None else json.dumps(body)
                connection.request(method, self.path + path, sent, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status in FINAL:
                    raise RefusedError(answer.status)
                if answer.status < 300:
                    return json.loads(content)
                delay = max(delay, float(answer.headers.get("Retry-After") or 0))
            if self.stopping.wait(delay) and attempt > 2:
                raise StoppedError
        raise StoppedError

    def work(self) -> None:
        for left in self.state.glob("*.json"):
            self.settle(left)
        while not self.stopping.is_set():
            began = time.monotonic()
            done = [self.take(run) for run in self.ask("GET", "/poll?wait=20")["runs"]]
            if not any(done):
                self.stopping.wait(max(0.0, 2 - (time.monotonic() - began)))

    def settle(self, left: Path) -> None:
        """End the program that a killed worker left, and report the outcome that it left, if any."""
        noted = json.loads(left.read_text())
        if pid := noted.pop("pid", None):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.report(left, noted)

    def report(self, note: Path, outcome: dict[str, Any]) -> None:
        write(note, outcome)
        with contextlib.suppress(RefusedError):
            self.ask("POST", f"/runs/{note.stem}/complete", outcome)
        note.unlink()

    def take(self, run: Any) -> bool:
        """Claim and execute one run. Tell whether it could be claimed."""
        if not isinstance(run, dict) or not isinstance(run.get("prompt"), str):
            return False
        base = f"/runs/{run['id']}"
        try:
            self.ask("POST", f"{base}/claim", {"claimId": uuid4().hex})
        except RefusedError:
            return False
        note = self.state / f"{run['id']}.json"
        configured = json.dumps([run["mcpUrl"], run["mcpHeaders"]])
        if "${" in configured:
            self.report(note, {"status": "failed", "faultClass": "client"})
            return True
        if run.get("resumeSessionId"):
            # This worker keeps no sessions, and must not repeat what the session has done.
            self.report(note, {"status": "failed", "faultClass": "infra"})
            return True
        try:
            self.ask("POST", f"{base}/start", {})
        except RefusedError:
            return True
        if outcome := Program(self, run, note).execute():
            self.report(note, outcome)
        return True


class Program:
    def __init__(self, worker: Worker, run: dict[str, Any], note: Path) -> None:
        self.worker, self.run, self.note = worker, run, note
        self.verdict: dict[str, Any] | None = {}
        self.ended = threading.Event()

    def execute(self) -> dict[str, Any] | None:
        with tempfile.TemporaryDirectory() as directory:
            mcp = Path(directory, "mcp.json")
            url, headers = self.run["mcpUrl"], self.run["mcpHeaders"]
            server = {"type": "http", "url": url, "headers": headers}
            write(mcp, {"mcpServers": {"trigger": server} if url else {}})
            write(self.note, {"status": "failed", "faultClass": "infra"})
            self.process = subprocess.Popen(
                [
                    *("claude", "-p", "--mcp-config", str(mcp), "--strict-mcp-config"),
                    *("--output-format", "stream-json", "--verbose"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            write(self.note, {"status": "failed", "faultClass": "infra", "pid": self.process.pid})
            for watch in (self.beat, self.watch):
                threading.Thread(target=watch, daemon=True).start()
            told, _ = self.process.communicate(self.run["prompt"].encode())
            self.ended.set()
        if self.verdict == {}:
            failed = self.process.returncode != 0
            return {
                "status": "failed" if failed else "succeeded",
                "faultClass": "infra" if failed else "none",
                "usageLimit": usage_limit(told) if failed else None,
            }
        return self.verdict

    def beat(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(StoppedError):
                try:
                    answer = self.worker.ask("POST", f"/runs/{self.run['id']}/heartbeat", {}, 3)
                except RefusedError:
                    self.end(None)
                    return
                if answer.get("cancelRequested"):
                    self.end({"status": "canceled"})
            self.ended.wait(1)

    def watch(self) -> None:
        deadline = time.monotonic() + self.run["timeoutSeconds"]
        while not self.ended.wait(0.1):
            if self.worker.stopping.is_set():
                self.end({"status": "failed", "faultClass": "infra"})
            elif time.monotonic() > deadline:
                self.end({"status": "timed_out", "faultClass": "client"})

    def end(self, verdict: dict[str, Any] | None) -> None:
        if self.verdict == {} and not self.ended.is_set():
            self.verdict = verdict
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            if verdict is None:
                self.note.unlink(missing_ok=True)


def usage_limit(told: bytes) -> dict[str, str] | None:
    """Find the usage limit that claude has told as reached, if there is one."""
    found = None
    for line in told.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            info = json.loads(line)["rate_limit_info"]
            if info["status"] == "rejected":
                at = datetime.fromtimestamp(info["resetsAt"], timezone.utc)
                found = {"resetsAt": at.isoformat(), "kind": info["rateLimitType"]}
    return found


def write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def main(config: str) -> int:
    worker = Worker(Path(config))

    def wait_for_sigterm() -> None:
        signal.sigwait({signal.SIGTERM})
        worker.stopping.set()

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait_for_sigterm, daemon=True).start()
    try:
        worker.work()
    except RefusedError as refused:
        print(f"The API answered {refused}.", file=sys.stderr)
        return 3
    except StoppedError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
