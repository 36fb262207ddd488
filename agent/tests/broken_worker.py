"""Runs a worker with one thing broken on purpose: `broken_worker.py HOW run --config FILE`.

Each function breaks one thing, and its decorator names the conformance kit's check that has to fail then. What a worker
does that takes its runs by poll and claim is broken in `plain_worker.py`, and everything else in our own.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from pipedai_worker import api as worker_api
from pipedai_worker import cli, redact
from pipedai_worker.api import Api, Refused
from pipedai_worker.conformance.fake_api import FakeRun
from pipedai_worker.disk.journal import Journal
from pipedai_worker.disk.sessions import Sessions
from pipedai_worker.executors.base import Execution, Job
from pipedai_worker.executors.claude import ClaudeExecutor
from pipedai_worker.executors.claude_names import SERVER_NAME
from pipedai_worker.gateway import Gate
from pipedai_worker.running import assigned, reporting, stopping
from pipedai_worker.running.assigned import AssignedRun, Decision
from pipedai_worker.running.loop import Loop, Polled
from pipedai_worker.running.outcome import Outcome, UsageLimit
from pipedai_worker.running.run import RunCredentials
from tests import plain_worker

# The command lines of the two workers.
OURS, PLAIN = "run --config {config} --drain-seconds 1", "{config}"
# For each way to break a worker: the check that notices it, the worker's command line, and the function that breaks it.
BREAKAGES: dict[str, tuple[str, str, Callable[[], None]]] = {}


def caught_by(
    check: str, command_line: str = OURS
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(breakage: Callable[[], None]) -> Callable[[], None]:
        BREAKAGES[breakage.__name__] = (check, command_line, breakage)
        return breakage

    return register


def replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


@caught_by("repeats-a-lost-claim", PLAIN)
def claims_anew_each_time() -> None:
    ask = plain_worker.Worker.ask

    def ask_once(self: plain_worker.Worker, method: str, path: str, *rest: Any) -> Any:
        if not path.endswith("/claim"):
            return ask(self, method, path, *rest)
        for _ in range(10):
            with contextlib.suppress(plain_worker.StoppedError):
                return ask(self, method, path, {"claimId": uuid4().hex}, 1)
        raise plain_worker.StoppedError

    replace(plain_worker.Worker, "ask", ask_once)


@caught_by("leaves-a-refused-claim-alone", PLAIN)
def executes_what_it_could_not_claim() -> None:
    ask = plain_worker.Worker.ask

    def claim_anyway(self: plain_worker.Worker, method: str, path: str, *rest: Any) -> Any:
        try:
            return ask(self, method, path, *rest)
        except plain_worker.RefusedError:
            if not path.endswith("/claim"):
                raise

    replace(plain_worker.Worker, "ask", claim_anyway)


@caught_by("leaves-a-lost-race-alone", PLAIN)
def sulks_after_a_lost_race() -> None:
    take = plain_worker.Worker.take

    def take_or_sulk(self: plain_worker.Worker, run: Any) -> bool:
        return take(self, run) or self.stopping.wait(600)

    replace(plain_worker.Worker, "take", take_or_sulk)


@caught_by("comes-back-after-a-refusal", PLAIN)
def never_claims_a_run_twice() -> None:
    take, taken = plain_worker.Worker.take, set()

    def take_once(self: plain_worker.Worker, run: Any) -> bool:
        if run["id"] in taken:
            return False
        taken.add(run["id"])
        return take(self, run)

    replace(plain_worker.Worker, "take", take_once)


@caught_by("repeats-a-lost-claim-next")
def asks_for_the_next_run_anew_each_time() -> None:
    replace(Journal, "next_claim_id", lambda self: uuid4().hex)


@caught_by("settles-a-claim-next-after-a-kill")
def forgets_its_claim_id_over_a_kill() -> None:
    replace(Journal, "_read_next_claim", lambda self: None)


@caught_by("keeps-the-lease")
def sends_no_heartbeats() -> None:
    replace(reporting.Heartbeat, "_beat", lambda self: None)


@caught_by("tells-tool-calls-well")
def counts_backwards() -> None:
    complete = Api.complete
    counts = {"total": 1, "effects": 2, "unknown": 0}
    replace(
        Api,
        "complete",
        lambda self, run_id, body: complete(self, run_id, {**body, "toolCalls": counts}),
    )


@caught_by("honours-a-cancel")
def is_deaf_to_cancels() -> None:
    beat = Api.heartbeat
    replace(
        Api,
        "heartbeat",
        lambda self, *told: {**beat(self, *told), "cancelRequested": False},
    )


@caught_by("honours-the-time-limit")
def knows_no_time_limit() -> None:
    request = stopping.StopRequest.request

    def ignore_time_limit(self: stopping.StopRequest, reason: stopping.StopReason) -> None:
        if reason is not stopping.StopReason.TIMED_OUT:
            request(self, reason)

    replace(stopping.StopRequest, "request", ignore_time_limit)


@caught_by("repeats-a-lost-report")
def reports_only_once() -> None:
    def once(call: Callable[[], Any], *_: Any) -> Any:
        try:
            return call()
        except worker_api.Unanswered:
            return {}

    replace(reporting, "until_answered", once)


@caught_by("keeps-an-outcome-over-a-kill")
def keeps_outcomes_in_memory() -> None:
    replace(Journal, "put_outcome", lambda self, run_id, body: None)


@caught_by("backs-off")
def polls_in_a_hot_loop() -> None:
    # Twenty polls a second are too many as well, and cost less CPU time than as many as are possible.
    replace(worker_api.Backoff, "next_delay", lambda self, retry_after=None: 0.05)


@caught_by("keeps-secrets")
def tells_secrets() -> None:
    replace(redact.Redactor, "redact", lambda self, text: text)
    replace(redact.Redactor, "redact_cut_off", lambda self, text: text)
    replace(redact.RedactingStream, "feed", lambda self, text: text)


@caught_by("keeps-secrets")
def spools_secrets() -> None:
    put = Journal.put_outcome
    secret = "sk-live-0123456789abcdef"
    replace(
        Journal,
        "put_outcome",
        lambda self, run_id, body: put(self, run_id, {**body, "sessionId": secret}),
    )


@caught_by("credentials")
def hides_only_the_first_headers() -> None:
    replace(RunCredentials, "_secrets", lambda self: list(self._headers[0].values()))


@caught_by("honours-retry-after")
def is_impatient() -> None:
    replace(worker_api, "parse_retry_after", lambda value: None)


@caught_by("settles-a-run-after-a-kill")
def forgets_what_it_held() -> None:
    replace(Journal, "held", lambda self: [])


@caught_by("leaves-at-once-when-idle")
def ends_with_code_1() -> None:
    replace(cli, "OK", 1)


@caught_by("refuses-expansion")
def lets_claude_expand_variables() -> None:
    execute = ClaudeExecutor.execute

    def execute_with_the_servers_headers(self: ClaudeExecutor, job: Job) -> Execution:
        server = {"type": "http", "url": job.run.mcp_url, "headers": dict(job.run.mcp_headers)}
        job.mcp_config.write_text(json.dumps({"mcpServers": {SERVER_NAME: server}}))
        return execute(self, job)

    replace(ClaudeExecutor, "execute", execute_with_the_servers_headers)


@caught_by("ignores-what-is-newer")
def believes_only_statuses_that_it_knows() -> None:
    read = worker_api.read

    def read_known(response: Any) -> dict[str, Any]:
        answer = read(response)
        if answer.get("status") == "paused":
            raise Refused("unknown status", 409)
        return answer

    replace(worker_api, "read", read_known)


@caught_by("ignores-what-is-newer-in-a-run")
def refuses_runs_with_more_than_it_knows() -> None:
    parse = AssignedRun.parse
    known = {**FakeRun().handed_out(), **FakeRun().shown()}.keys()
    replace(AssignedRun, "parse", lambda item: parse(item) if item.keys() <= known else None)


@caught_by("tells-a-usage-limit")
def hides_usage_limits() -> None:
    body = Outcome.body
    replace(Outcome, "body", lambda self: {**body(self), "usageLimit": None})


@caught_by("tells-a-usage-limit")
def tells_usage_limits_as_a_number() -> None:
    replace(UsageLimit, "body", lambda self: {"resetsAt": self.resets_at, "kind": self.kind})


@caught_by("waits-while-it-is-limited")
def ends_when_it_is_limited() -> None:
    take = Loop._take

    def take_and_end(self: Loop, polled: Polled) -> None:
        take(self, polled)
        if self._api.limited_seconds is not None:
            self._drain(0.0)

    replace(Loop, "_take", take_and_end)


@caught_by("does-not-repeat-what-it-cannot-resume")
def begins_lost_sessions_anew() -> None:
    parse = AssignedRun.parse
    replace(AssignedRun, "parse", lambda item: parse({**item, "resumeSessionId": None}))


@caught_by("parks-a-gated-call")
def sends_before_it_spends() -> None:
    replace(Gate, "spend", lambda self, _: None)


@caught_by("sends-nothing-unspent")
def sends_what_it_could_not_spend() -> None:
    def spend(self: Gate, approval_id: str) -> None:
        with contextlib.suppress(Exception):
            self._spend(approval_id)

    replace(Gate, "spend", spend)


@caught_by("refuses-what-no-hook-held")
def trusts_the_hook() -> None:
    replace(Gate, "admit", lambda self, posted, request: None)


@caught_by("refuses-a-rejected-call")
def takes_a_rejection_for_an_approval() -> None:
    def parse(item: Any) -> Decision:
        return decided({**item, "decision": assigned.APPROVE})

    decided = Decision.parse
    replace(Decision, "parse", parse)


@caught_by("keeps-a-run-that-waits")
def forgets_what_waits() -> None:
    replace(Sessions, "keep", lambda self, session, executor: self.forget(session.id, executor))


@caught_by("does-a-run")
def reports_numbers_as_text() -> None:
    body = Outcome.body
    replace(Outcome, "body", lambda self: {**body(self), "exitCode": "0"})


def main() -> int:
    how, *rest = sys.argv[1:]
    _, command_line, breakage = BREAKAGES[how]
    breakage()
    return cli.main(rest) if command_line == OURS else plain_worker.main(rest[0])


if __name__ == "__main__":
    sys.exit(main())
