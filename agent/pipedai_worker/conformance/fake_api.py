"""A fake of PipedAI's API for one worker. It keeps its runs in memory, and fails on demand."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from pipedai_worker.conformance import requests
from pipedai_worker.stand_in.mcp_server import Tool

LONGEST_OUTPUT = 64 * 1024  # bytes
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
# The fields of a gated call that the decision on it repeats.
_OF_A_DECISION = ("approvalId", "tool", "argumentsHash", "toolSchemaHash")


# The fields of a run that the fake API hands to its worker.
_HANDED_OUT = (
    *("id", "prompt", "mcp_url", "mcp_headers", "model", "timeout_seconds", "payload", "attempt"),
    *("output_schema", "retry_after_effects", "retry_mode", "resume_session_id"),
    "max_cost_usd",
)


def _api_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


@dataclass
class FakeRun:
    prompt: str = "Say hello."
    id: str = field(default_factory=lambda: str(uuid4()))
    mcp_url: str | None = "https://mcp.example.com/mcp"
    # The headers that the run's trigger has at present, and in how many seconds they expire; None if they do not.
    mcp_headers: dict[str, str] = field(default_factory=dict)
    headers_expire_in: float | None = None
    model: str | None = None
    timeout_seconds: float = 60
    payload: Any = None
    attempt: int = 1
    output_schema: Any = None
    retry_after_effects: bool = True
    record_events: str = "failures"
    # True if somebody watches the run's events. The answers to its heartbeats then say so.
    watched: bool = False
    retry_mode: str = "restart"
    resume_session_id: str | None = None
    max_cost_usd: Any = None
    # The rules on calls that a person must approve, as the API hands them out in `rules`; None if there are none.
    rules: list[dict[str, Any]] | None = None
    allow_host_tools: bool = False
    # The look before the program starts, and the output of an earlier run, as the API hands them out.
    before: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    # These fields are added to the run when it is handed out, as a newer version of the API might do.
    newer: dict[str, Any] = field(default_factory=dict)
    # These fields are added to the answer to a claim of the run, and override what a poll said.
    claimed_as: dict[str, Any] = field(default_factory=dict)
    # The `resumeUntil` in the answer to the run's report: how long its session can be resumed. "" leaves the field out.
    resume_until: str | None = ""
    # If this is a status, another worker claims the run after it was handed out, and the claim is refused with that
    # status: 409 if the worker under test is in the run's pool, 404 if it is not.
    lost_to_another: int | None = None
    status: str = "queued"
    claim_id: str | None = None
    cancel_requested: bool = False
    outcome: dict[str, Any] | None = None
    # How many calls of a tool the run's own MCP server has taken.
    calls_taken: int = 0
    # The tool call for which the run waits, or last waited, as the worker reported it, with an `approvalId`.
    approval: dict[str, Any] | None = None
    # What a person decided on that call, as the API hands it out; None while nobody has decided.
    decision: dict[str, Any] | None = None
    # How often the worker has used an approval up.
    spent: int = 0
    # The counts of tool calls that the worker reported last; None if it reported none.
    tool_calls: dict[str, int] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    # When the run's lease was last renewed (monotonic clock), and the longest time between two renewals, in seconds.
    renewed_at: float = 0.0
    longest_silence: float = 0.0

    def handed_out(self) -> dict[str, Any]:
        gates = {
            "rules": self.rules,
            "allowHostTools": self.allow_host_tools,
            "decision": self.decision,
        }
        told = {_api_name(name): getattr(self, name) for name in _HANDED_OUT}
        return {
            **told,
            "recordEvents": self.recorded,
            "triggerId": str(uuid4()),
            "triggerName": "Nightly report",
            "headersExpireAt": self.expires_at(),
            **({} if self.rules is None else {"approvals": gates}),
            **({} if self.before is None else {"before": self.before}),
            **({} if self.previous is None else {"previous": self.previous}),
            "queuedAt": now().isoformat(),
            "somethingNewer": True,
            **self.newer,
        }

    @property
    def recorded(self) -> str:
        return "always" if self.watched and self.record_events == "failures" else self.record_events

    def expires_at(self) -> str | None:
        left = self.headers_expire_in
        return None if left is None else iso(now() + timedelta(seconds=left))

    @property
    def needs(self) -> set[str]:
        """The features that a worker must announce to be given the run."""
        needed = {"approvals": self.rules, "before": self.before}
        return {feature for feature, why in needed.items() if why is not None}

    def shown(self) -> dict[str, Any]:
        """Return the run as the answer to a claim, start, heartbeat or complete shows it."""
        shown = {"id": self.id, "status": self.status, "cancelRequested": self.cancel_requested}
        return shown if self.resume_until == "" else {**shown, "resumeUntil": self.resume_until}

    def decide(self, decision: str, reason: str) -> None:
        call = {name: (self.approval or {})[name] for name in _OF_A_DECISION}
        self.decision = {**call, "decision": decision, "reason": reason}

    def take_events(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Add those events that the run has not got yet, and return the status and the answer."""
        failed = self.recorded == "failures" and self.status in TERMINAL - {"succeeded"}
        if self.recorded != "always" and not failed:
            return 409, {"error": "The run's trigger records no events.", "code": "events_off"}
        for event in body["events"]:
            expected = len(self.events) + 1
            if event["seq"] > expected:
                sentence = f"Event {expected} is missing."
                return 409, {"error": sentence, "code": "event_gap", "nextSeq": expected}
            if event["seq"] == expected:
                self.events.append(event)
        return 200, {"nextSeq": len(self.events) + 1}

    def settled(self, body: dict[str, Any]) -> str:
        """Return the status that a report gives the run. A success whose required output is missing is a failure."""
        is_nothing_new = (body.get("before") or {}).get("nothingNew") is True
        if body["status"] != "succeeded" or self.output_schema is None or is_nothing_new:
            return str(body["status"])
        output = json.dumps(body.get("output"), ensure_ascii=False, separators=(",", ":"))
        fits = "output" in body and len(output.encode("utf-8", "replace")) <= LONGEST_OUTPUT
        return "succeeded" if fits else "failed"

    def renew(self) -> None:
        moment = time.monotonic()
        if self.renewed_at:
            self.longest_silence = max(self.longest_silence, moment - self.renewed_at)
        self.renewed_at = moment


def now() -> datetime:
    return datetime.now(timezone.utc)


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


IN_HAND = {"claimed", "running"}
# With this `status` of a fault, the fake API carries the request out, but then cuts the connection.
DROP = "drop"


@dataclass
class Fault:
    status: int | str
    times: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class FakeApi:
    """The fake API of one worker. `lock` guards every attribute; tests wait for something with `until()`."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.worker_id = str(uuid4())
        self.worker_token = "wkt_" + "A" * 49
        self.environment_id = str(uuid4())
        # The way in which claude is paid for on the worker's machine. The worker tells it when it registers.
        self.auth_mode = "claude_max"
        self.registration_token = "wrk_" + "B" * 49
        self.capacity = 1
        self.lease_seconds = 30.0
        # If false, a call that waits for a run is answered at once.
        self.long_polls = True
        # These fields are added to every answer, as a newer version of the API might do.
        self.newer: dict[str, Any] = {}
        self.clock_ahead = timedelta()
        # For how many seconds the worker gets no runs because of its account's usage limit; None if there is no limit.
        self.limited_seconds: float | None = None
        # Every answer is delayed by this many seconds.
        self.latency = 0.0
        self.runs: dict[str, FakeRun] = {}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        # When each request came, as a time of the monotonic clock.
        self.moments: list[float] = []
        self.headers: list[dict[str, str]] = []
        # The URL of the MCP server for runs that name no other. `Service` sets it to that of its own small server.
        self.mcp_url = "https://mcp.example.com/mcp"
        # The tools of that MCP server, and the features that the worker has announced.
        self.tools: dict[str, Tool] = {}
        self.announced: set[str] = set()
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        # One sentence for each request that broke the API's rules.
        self.malformed: list[str] = []
        # One sentence for each request whose tool calls or usage limit the real API would ignore, at least in part.
        self.ignored: list[str] = []
        self.polls_waiting = 0
        self.most_polls_waiting = 0
        # How many requests that wait for a run have come. A newer one ends the older.
        self.waits = 0
        self.closing = False
        # How often the service was stopped. A stop ends all calls that wait, even if it starts again at once.
        self.stops = 0

    def add(self, prompt: str = "Say hello.", **fields: Any) -> FakeRun:
        return self.queue(FakeRun(prompt, **{"mcp_url": self.mcp_url, **fields}))

    def queue(self, run: FakeRun) -> FakeRun:
        with self.lock:
            self.runs[run.id] = run
            self.lock.notify_all()
        return run

    def fail(self, kind: str, status: int | str, times: int = 1, **rest: Any) -> None:
        with self.lock:
            self.faults[kind].append(Fault(status, times, **rest))

    def heal(self) -> None:
        with self.lock:
            self.faults.clear()

    def cancel(self, run: FakeRun) -> None:
        """Ask to stop the run. One that waits ends at once."""
        with self.lock:
            run.cancel_requested = True
            if run.status == "waiting":
                run.status = "canceled"
                self.lock.notify_all()

    def decide(self, run: FakeRun, decision: str, reason: str = "") -> None:
        """Decide as a person would on the call for which the run waits. The worker gets the run again."""
        with self.lock:
            if run.status != "waiting" or run.approval is None:
                raise AssertionError(f"the run is {run.status}")
            run.decide(decision, reason)
            run.status, run.claim_id = "queued", None
            run.resume_session_id = (run.outcome or {})["sessionId"]
            self.lock.notify_all()

    def until_waiting(self, run: FakeRun, seconds: float = 60.0) -> dict[str, Any]:
        """Return the call for which the run waits. Raises AssertionError if the run ends instead."""
        self.until(lambda: run.status in {"waiting", *TERMINAL}, seconds)
        if run.status != "waiting" or run.approval is None:
            raise AssertionError(f"the run is {run.status}: {run.outcome}")
        return run.approval

    def _calls_of(
        self, kind: str, run: FakeRun | None = None
    ) -> list[tuple[float, dict[str, Any]]]:
        """Return when the calls of this kind came, and their bodies; with `run` only those about the run."""
        with self.lock:
            return [
                (moment, body)
                for (called, run_id, body), moment in zip(self.calls, self.moments)
                if called == kind and run_id == (run.id if run else run_id)
            ]

    def count(self, kind: str, run: FakeRun | None = None) -> int:
        return len(self._calls_of(kind, run))

    def asked(self) -> int:
        return self.count("poll") + self.count("claim-next")

    def named_waiting(self) -> list[str]:
        """Return the ids of the runs that the worker's last `claim-next` named as waiting."""
        asked = self._calls_of("claim-next")
        return list(asked[-1][1].get("waitingRuns") or []) if asked else []

    def bodies(self, kind: str, run: FakeRun) -> list[dict[str, Any]]:
        return [body for _, body in self._calls_of(kind, run)]

    def times(self, kind: str, run: FakeRun) -> list[float]:
        return [moment for moment, _ in self._calls_of(kind, run)]

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        with self.lock:
            while not (value := what()):
                left = deadline - time.monotonic()
                if left <= 0:
                    calls = [f"{kind} {run_id[:8]}" for kind, run_id, _ in self.calls[-20:]]
                    raise AssertionError(f"not within {seconds} s; calls: {calls}")
                self.lock.wait(min(left, 0.5))
            return value

    # The limit is long because claude may be started twice for one run, which takes over a minute on a busy machine.
    def until_ended(self, run: FakeRun, seconds: float = 180.0) -> dict[str, Any]:
        self.until(lambda: run.status in TERMINAL, seconds)
        return run.outcome or {}

    # --- Answering requests ----------------------------------------------------------------------

    def answer(self, method: str, url: str, headers: Any, body: dict[str, Any]) -> Any:
        """Answer a request with `(status, body, headers)`, or with DROP to cut the connection."""
        parts = urlsplit(url)
        kind, run_id = route(method, parts.path)
        if kind == "spend":
            body = {**body, "approvalId": parts.path.split("/")[-2]}
        with self.lock:
            self.calls.append((kind, run_id, body))
            self.moments.append(time.monotonic())
            self.headers.append(dict(headers.items()))
            self.lock.notify_all()
            fault = next((each for each in self.faults[kind] if each.times > 0), None)
            if fault:
                fault.times -= 1
            if fault and fault.status != DROP:
                return fault.status, fault.body or {"error": "As scripted."}, fault.headers
            status, answer = self._honest(kind, run_id, headers, body, parse_qs(parts.query))
            self.lock.notify_all()
            return DROP if fault else (status, {**answer, **self.newer}, {})

    def refuse(self, status: int, code: str, sentence: str) -> tuple[int, dict[str, Any]]:
        """Return the answer to a request that breaks the API's rules, and remember what was wrong."""
        with self.lock:
            self.malformed.append(sentence)
        return status, {"error": sentence, "code": code}

    def _honest(
        self, kind: str, run_id: str, headers: Any, body: Any, query: Any
    ) -> tuple[int, dict[str, Any]]:
        if kind == "health":
            return 200, {"status": "ok"}
        if kind == "register":
            return self._register(body)
        if kind == "unknown":
            return 404, {"error": "Not found", "code": "not_found"}
        if headers.get("Authorization") != f"Bearer {self.worker_token}":
            return 401, {"error": "The token is not valid.", "code": "invalid_token"}
        if (problem := requests.problem(kind, query, body)) is not None:
            return self.refuse(400, "validation_failed", f"{kind}: {problem}.")
        if kind == "whoami":
            return 200, {
                "kind": "worker",
                "id": self.worker_id,
                "environmentId": self.environment_id,
            }
        if kind == "sign-off":
            return 204, {}
        if kind == "poll":
            features = query.get("features", [""])[0].split(",")
            return self._poll(float(query.get("wait", ["0"])[0]), features)
        if kind == "claim-next":
            return self._claim_next(body)
        return self._move_run(kind, run_id, body)

    def _move_run(self, kind: str, run_id: str, body: Any) -> tuple[int, dict[str, Any]]:
        run = self.runs.get(run_id)
        if run is None or (run.lost_to_another and kind != "claim"):
            return 404, {"error": "Not found", "code": "not_found"}
        answer: tuple[int, dict[str, Any]] = getattr(self, f"_{kind}")(run, body)
        if answer[0] == 200 and kind not in {"events", "credentials"}:
            run.renew()
        return answer

    def _register(self, body: Any) -> tuple[int, dict[str, Any]]:
        if not body.get("token") or body["token"] != self.registration_token:
            return 401, {"error": "The registration token is not valid.", "code": "invalid_token"}
        self.registration_token = ""
        self.auth_mode = str(body.get("authMode") or self.auth_mode)
        return 201, {
            "workerId": self.worker_id,
            "workerToken": self.worker_token,
            "workspaceId": str(uuid4()),
            "environmentId": self.environment_id,
            "authMode": self.auth_mode,
        }

    def _poll(self, wait: float, features: list[str]) -> tuple[int, dict[str, Any]]:
        due = self._wait_for(lambda: self._due(features), wait)
        return 200, {"runs": [run.handed_out() for run in due or []], **self._poll_fields()}

    def _wait_for(self, what: Callable[[], Any], seconds: float) -> Any:
        """Wait until `what()` is true or the time is up, and return its result; None if the service was stopped."""
        seconds = seconds if self.long_polls else 0
        deadline = time.monotonic() + seconds
        self.waits += bool(seconds)
        own, stops = self.waits, self.stops
        self.polls_waiting += 1
        self.most_polls_waiting = max(self.most_polls_waiting, self.polls_waiting)
        try:
            while True:
                if self.closing or self.stops > stops:
                    return None
                found, left = what(), deadline - time.monotonic()
                if found or left <= 0 or self.waits > own:
                    return found
                self.lock.wait(min(left, 0.5))
        finally:
            self.polls_waiting -= 1

    def _due(self, features: list[str]) -> list[FakeRun]:
        self.announced.update(features)
        if self.limited_seconds is not None:
            return []
        runs, able = self.runs.values(), set(features)
        held = sum(run.status in IN_HAND and not run.lost_to_another for run in runs)
        due = [run for run in runs if run.status == "queued" and run.needs <= able]
        return due[: max(0, self.capacity - held)]

    def _poll_fields(self) -> dict[str, Any]:
        left = self.limited_seconds
        return {
            "authMode": self.auth_mode,
            "limitedUntil": None if left is None else self._time(left),
            "serverTime": self._time(),
        }

    def _claim_next(self, body: Any) -> tuple[int, dict[str, Any]]:
        claim_id = body["claimId"]

        def find() -> FakeRun | None:
            for run in self.runs.values():
                if run.status in IN_HAND and run.claim_id == claim_id:
                    return run
            return next(iter(self._due(body.get("features") or [])), None)

        def ended() -> list[str]:
            named = body.get("waitingRuns") or []
            return [
                each
                for each in named
                if each not in self.runs or self.runs[each].status in TERMINAL
            ]

        found = self._wait_for(lambda: find() or ended(), body.get("wait", 0))
        run = found if isinstance(found, FakeRun) else None
        told = {"endedRuns": ended(), **self._poll_fields()}
        if run is None:
            return 200, {"run": None, **told}
        if run.status == "queued":
            self._move(run, {"queued"}, "claimed", claim_id=claim_id)
        self._start_with(run, body)
        run.renew()
        return 200, {"run": {**run.handed_out(), **run.shown(), **run.claimed_as}, **told}

    def _start_with(self, run: FakeRun, body: Any) -> None:
        if body.get("start"):
            self._move(run, {"claimed"}, "running")

    def _claim(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        if run.lost_to_another:
            run.status = "claimed"
            if run.lost_to_another == 404:
                return 404, {"error": "Not found", "code": "not_found"}
            return 409, _conflict("The run is claimed.", "claimed_by_another", run)
        if self.limited_seconds is not None and run.status == "queued":
            return 409, _conflict("The worker is limited.", "worker_limited", run)
        repeated = run.claim_id == body.get("claimId")
        started = run.status == "running" and body.get("start")
        if not (repeated and (run.status == "claimed" or started)):
            if run.status == "claimed":
                return 409, _conflict("The run is claimed.", "claimed_by_another", run)
            status, answer = self._move(run, {"queued"}, "claimed", claim_id=body.get("claimId"))
            if status != 200:
                return status, answer
        self._start_with(run, body)
        return 200, {**run.shown(), **run.claimed_as}

    def _start(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        return self._move(run, {"claimed", "running"}, "running")

    def _heartbeat(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        if run.status not in IN_HAND:
            return 409, _conflict(f"The run is {run.status}.", "run_state", run)
        self._note_tool_calls("heartbeat", run, body)
        told = {"leaseExpiresAt": self._time(self.lease_seconds), "recordEvents": run.recorded}
        return 200, {**run.shown(), **told}

    def _time(self, later: float = 0.0) -> str:
        return iso(now() + self.clock_ahead + timedelta(seconds=later))

    def _credentials(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        if run.status not in IN_HAND:
            return 409, _conflict(f"The run is {run.status}.", "run_state", run)
        expires_at = run.expires_at()
        return 200, {"mcpUrl": run.mcp_url, "headers": run.mcp_headers, "expiresAt": expires_at}

    def admits(self, path: str, headers: Any, message: dict[str, Any]) -> FakeRun | bool:
        """Tell whether an MCP server at this path takes a message. A run's own server counts calls: return its run."""
        with self.lock:
            run = self.runs.get(path.rpartition("/")[2])
            if run is None:
                return True
            if any(headers.get(name) != value for name, value in run.mcp_headers.items()):
                return False
            run.calls_taken += message.get("method") == "tools/call"
            self.lock.notify_all()
            return run

    def _complete(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        status = run.settled(body)
        # A run that is queued with an approval has waited, and no worker has claimed it since.
        has_waited = run.status == "queued" and run.approval is not None
        if run.status == status or (status == "waiting" and has_waited):
            return 200, run.shown()
        only_looks = (run.before or {}).get("lookOnly") is True
        if status == "canceled" and not (run.cancel_requested or only_looks):
            return 409, _conflict("No cancel was requested.", "cancel_not_requested", run)
        if status == "waiting" and run.status in IN_HAND and body.get("claimId") != run.claim_id:
            sentence = "The run was claimed with another claimId."
            return 409, _conflict(sentence, "claimed_by_another", run)
        self._note_tool_calls("complete", run, body)
        if status == "waiting" and run.status in IN_HAND:
            if run.cancel_requested:
                status = "canceled"
            run.approval = {"approvalId": str(uuid4()), **body["approval"]}
            run.decision, run.tool_calls = None, None
        return self._move(run, IN_HAND, status, outcome=body)

    def _spend(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        approval, decision = run.approval or {}, run.decision or {}
        right = approval.get("approvalId") == body["approvalId"] and run.status in IN_HAND
        if not right or decision.get("decision") != "approve" or decision.get("spent"):
            return 409, _conflict("The approval can't be spent.", "approval_unspendable", run)
        decision["spent"] = True
        run.spent += 1
        return 200, run.shown()

    def _events(self, run: FakeRun, body: Any) -> tuple[int, dict[str, Any]]:
        return run.take_events(body)

    def _note_tool_calls(self, kind: str, run: FakeRun, body: Any) -> None:
        flaws = list(requests.flaws(kind, body, run.tool_calls))
        self.ignored += [f"{kind}: {flaw}." for flaw in flaws]
        if not flaws and body.get("toolCalls") is not None:
            run.tool_calls = body["toolCalls"]

    def _move(
        self, run: FakeRun, sources: set[str], target: str, **changes: Any
    ) -> tuple[int, dict[str, Any]]:
        if run.status not in sources:
            return 409, _conflict(f"The run is {run.status}.", "run_state", run)
        if run.status != target:
            run.history.append(target)
        run.status = target
        for name, value in changes.items():
            setattr(run, name, value)
        return 200, run.shown()


def _conflict(sentence: str, code: str, run: FakeRun) -> dict[str, Any]:
    return {"error": sentence, "code": code, "status": run.status}


_ID = "[0-9a-f-]{36}"
_WORKER = f"/api/v1/workers/{_ID}"
_OF_A_RUN = "claim|spend|start|heartbeat|credentials|complete|events"
# The method of a kind of requests, and their paths. The last group is the kind, and the one before it the run's id.
_ROUTES = (
    ("GET", "/api/v1/(health|whoami)"),
    ("POST", "/api/v1/workers/(register)"),
    ("GET", f"{_WORKER}/(poll)"),
    ("POST", f"{_WORKER}/(claim-next|sign-off)"),
    ("POST", f"{_WORKER}/runs/({_ID})/(?:approvals/{_ID}/(?=spend))?({_OF_A_RUN})"),
)


def route(method: str, path: str) -> tuple[str, str]:
    """Return the kind of a request, such as `claim`, and the id of the run in its path."""
    for allowed, pattern in _ROUTES:
        if method == allowed and (match := re.fullmatch(pattern, path)):
            *run_id, kind = match.groups()
            return kind, "".join(run_id)
    return "unknown", ""
