"""Checks what a worker need not know: one of the ways of taking runs, and calls that a person must approve."""

import hashlib
from functools import partial
from typing import Any

from pipedai_worker.conformance.fake_api import DROP, FakeRun
from pipedai_worker.conformance.lab import (
    MOST_ATTEMPTS,
    QUIET_SECONDS,
    Lab,
    Skipped,
    check,
    expect,
    expect_few_polls,
    expect_status,
    expect_well_formed,
)
from pipedai_worker.stand_in.mcp_server import Tool


def _skip_unless_used(lab: Lab, kind: str = "claim-next") -> None:
    """Raise Skipped if the worker asks for runs, but never by this call."""
    lab.until(lab.api.asked, "It never asked for a run.")
    if not lab.api.count(kind):
        used = "claim-next" if kind == "poll" else "poll and claim"
        raise Skipped(f"It takes its runs by {used}.")


@check("a run taken by claim-next is executed once, and the next one has another claimId")
def takes_the_next_run(lab: Lab) -> None:
    runs = [lab.add(), lab.add()]
    lab.start()
    for run in runs:
        lab.must_end_once(run)
        expect(run.history == ["claimed", "running", "succeeded"], f"The run went {run.history}.")
    _skip_unless_used(lab)
    expect(runs[0].claim_id != runs[1].claim_id, "It took two runs with one claimId.")
    expect_well_formed(lab)


@check("a claim-next whose answer was lost is repeated with its claimId, and the run done once")
def repeats_a_lost_claim_next(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP)
    run = lab.start_with()
    expect_status(lab.until_ended(run), "succeeded")
    _skip_unless_used(lab)
    with lab.api.lock:
        asked = [body.get("claimId") for kind, _, body in lab.api.calls if kind == "claim-next"]
    expect(asked[:1] == asked[1:2], "It repeated its claim-next with another claimId.")
    lab.expect_launched_once(run)


@check("after a kill -9 while the answer to claim-next was lost, its run is settled at the restart")
def settles_a_claim_next_after_a_kill(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP, times=10_000)
    run = lab.start_with()
    lab.until(lambda: run.status != "queued", "It never took the run.")
    _skip_unless_used(lab)
    lab.kill()
    lab.api.heal()
    lab.start()
    lab.until_ended(run)
    expect(lab.launched(run) <= 1, f"It launched the program {lab.launched(run)} times.")
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check("a claim whose answer was lost is repeated with the same claimId, and the run done once")
def repeats_a_lost_claim(lab: Lab) -> None:
    run = _lose(lab, "claim")
    claim_ids = {body.get("claimId") for body in lab.api.bodies("claim", run)}
    expect(len(claim_ids) == 1, "It repeated its claim with another claimId.")


@check("a start whose answer was lost is repeated, and the run done once")
def repeats_a_lost_start(lab: Lab) -> None:
    _lose(lab, "start")


def _lose(lab: Lab, kind: str) -> FakeRun:
    lab.api.fail(kind, DROP)
    run = lab.start_with()
    _skip_unless_used(lab, "poll")
    lab.must_end_once(run)
    return run


@check("a run whose claim is refused with 409 is left alone, without a hot loop")
def leaves_a_refused_claim_alone(lab: Lab) -> None:
    lab.api.fail(
        "claim", 409, times=10_000, body={"error": "The run is taken.", "status": "claimed"}
    )
    run = lab.start_with()
    _skip_unless_used(lab, "poll")
    lab.until(lambda: lab.api.count("claim"), "It never claimed.")
    expect_few_polls(lab, "polled")
    claims = lab.api.count("claim")
    expect(claims <= MOST_ATTEMPTS, f"It claimed {claims} times in {QUIET_SECONDS:g} s.")
    expect(lab.launched(run) == 0, "It launched a run that it could not claim.")
    for kind in ("start", "complete"):
        expect(lab.api.count(kind) == 0, f"It sent {kind} for a run that it could not claim.")


@check("a run whose start is refused with 409 is not executed")
def leaves_a_refused_start_alone(lab: Lab) -> None:
    run = lab.add()
    lab.api.fail("start", 409, body={"error": "The run is failed.", "status": "failed"})
    lab.start()
    _skip_unless_used(lab, "poll")
    lab.until(lambda: lab.api.count("start"), "It never started the run.")
    with lab.api.lock:
        run.status = "failed"
    other = lab.add()
    lab.until_ended(other)
    expect(lab.launched(run) == 0, "It launched a run whose start was refused.")


@check("a run that another of the pool has claimed (409, 404) is left alone, and the next done")
def leaves_a_lost_race_alone(lab: Lab) -> None:
    lab.start()
    _skip_unless_used(lab, "poll")
    # The API answers 409 to the workers of the run's pool, and 404 to one that has left the pool since its poll.
    for status in (409, 404):
        run = lab.add(lost_to_another=status)
        lab.until(partial(lab.api.count, "claim", run), "It did not claim a run of a pool.")
        expect_status(lab.until_ended(lab.add()), "succeeded")
        expect(lab.launched(run) == 0, "It launched a run that another worker had claimed.")
        for kind in ("start", "heartbeat", "complete"):
            sent = lab.api.count(kind, run)
            expect(sent == 0, f"It sent {kind} for a run that another worker had claimed.")


@check("a run whose claim is refused while the worker is limited is claimed again later")
def comes_back_after_a_refusal(lab: Lab) -> None:
    lab.api.fail(
        "claim",
        409,
        times=2,
        body={"error": "Limited.", "code": "worker_limited", "status": "queued"},
    )
    run = lab.start_with()
    _skip_unless_used(lab, "poll")
    lab.must_end_once(run)


@check("a run that it can't read is left out, and the others are done")
def skips_what_it_cannot_read(lab: Lab) -> None:
    good = lab.add()
    hostile: list[Any] = [
        None,
        {},
        {**good.handed_out(), "id": "../../etc/passwd"},
        {**good.handed_out(), "id": FakeRun().id, "prompt": None},
    ]
    lab.api.fail("poll", 200, body={"runs": [*hostile, good.handed_out()]})
    lab.start()
    _skip_unless_used(lab, "poll")
    expect_status(lab.until_ended(good), "succeeded")


RULES = [{"tools": "*", "when": "possible_effect"}]
ARGUMENTS = {"to": "Ann", "euros": 5}
# The RFC 8785 form of ARGUMENTS.
CANONICAL = b'{"euros":5,"to":"Ann"}'
CALL = 'pay {"to": "Ann", "euros": 5.0}'


class Till:
    """The run's MCP server: `pay` may have an effect, `look` only reads. `paid` has what was paid, in order."""

    def __init__(self, lab: Lab, *lines: str) -> None:
        """Hand the worker a run with these lines. Raises Skipped if the worker does not announce approvals."""
        self._lab = lab
        self.paid: list[dict[str, Any]] = []
        # How many approvals were spent before each payment.
        self.spent: list[int] = []
        schema = {"type": "object"}
        look = {"name": "look", "inputSchema": schema, "annotations": {"readOnlyHint": True}}
        lab.install()
        lab.api.tools = {
            "pay": Tool({"name": "pay", "inputSchema": schema}, self._pay),
            "look": Tool(look, lambda _: "nothing"),
        }
        self.run = lab.add(*lines, rules=RULES)
        lab.start_unless_unable(self.run, "approvals")

    def _pay(self, arguments: dict[str, Any]) -> str:
        self.paid.append(arguments)
        self.spent.append(self.run.spent)
        return "paid"

    def until_waiting(self) -> None:
        run = self.run
        self._lab.until(
            lambda: run.status not in {"queued", "claimed", "running"}, "It never parked the run."
        )
        expect(run.status == "waiting", f"The run did not wait, but was reported as {run.status}.")
        expect(not self.paid, "It sent a gated call that nobody had approved.")

    def until_ended(self, *, paid: int) -> dict[str, Any]:
        outcome = self._lab.until_ended(self.run)
        expect(
            len(self.paid) == paid, f"The gated call reached the MCP server {len(self.paid)} times."
        )
        expect_well_formed(self._lab)
        return outcome


def _expect_denied(lab: Lab, outcome: dict[str, Any]) -> None:
    denials = outcome.get("denials") or {}
    expect(denials.get("tools") == ["pay"], f"It told the refused calls as {denials}.")
    expect(not lab.api.ignored, f"The API would ignore: {''.join(lab.api.ignored[:1])}")


@check("a gated call makes the run wait, and when it is approved it is spent and then sent, once")
def parks_a_gated_call(lab: Lab) -> None:
    till = Till(lab, "call look", f"call {CALL}", "success")
    till.until_waiting()
    asked = till.run.approval or {}
    expect(asked.get("tool") == "pay", f"It asked for an approval of {asked.get('tool')!r}.")
    expect(asked.get("arguments") == ARGUMENTS, "It told other arguments than the call has.")
    expected = hashlib.sha256(CANONICAL).hexdigest()
    expect(asked.get("argumentsHash") == expected, "The hash is not that of the RFC 8785 form.")
    lab.api.decide(till.run, "approve")
    expect_status(till.until_ended(paid=1), "succeeded")
    expect(till.spent == [1], "It sent the call before the API had confirmed the spending.")


@check("a rejected call is refused, counted in denials, and the run goes on")
def refuses_a_rejected_call(lab: Lab) -> None:
    till = Till(lab, f"call {CALL}", "success")
    till.until_waiting()
    lab.api.decide(till.run, "reject", "Not today.")
    outcome = till.until_ended(paid=0)
    expect_status(outcome, "succeeded")
    _expect_denied(lab, outcome)


@check("a gated call is refused although claude asked no hook about it, and counted in denials")
def refuses_what_no_hook_held(lab: Lab) -> None:
    till = Till(lab, f"call-unhooked {CALL}", "success")
    # A worker may also report that the run waits, if it can make the run wait without the hook.
    run = till.run
    lab.until(lambda: run.status not in {"queued", "claimed", "running"}, "The run hangs.")
    expect(not till.paid, "It sent a gated call that nobody had approved.")
    if till.run.status != "waiting":
        _expect_denied(lab, till.until_ended(paid=0))


@check("a call whose approval the API refuses to spend is not sent")
def sends_nothing_unspent(lab: Lab) -> None:
    till = Till(lab, f"call {CALL}", "success")
    till.until_waiting()
    lab.api.fail("spend", 409, times=100, body={"error": "Spent.", "code": "approval_unspendable"})
    lab.api.decide(till.run, "approve")
    till.until_ended(paid=0)


@check("a run that waits is named in waitingRuns, and no more once the API says that it has ended")
def learns_that_a_run_ended(lab: Lab) -> None:
    till = Till(lab, f"call {CALL}", "success")
    till.until_waiting()
    asked = lab.api.asked()
    lab.until(lambda: lab.api.asked() > asked, "It asked for no run while another one waited.")
    if till.run.id not in lab.api.named_waiting():
        raise Skipped("It does not ask whether runs that wait have ended.")
    lab.api.cancel(till.run)
    lab.until(
        lambda: till.run.id not in lab.api.named_waiting(),
        "It still asked about a run that the API had told it has ended.",
    )
    expect_well_formed(lab)


@check("a run that waits survives a kill -9, and its approved call is sent once")
def keeps_a_run_that_waits(lab: Lab) -> None:
    till = Till(lab, f"call {CALL}", "success")
    till.until_waiting()
    lab.kill()
    lab.api.decide(till.run, "approve")
    lab.start()
    expect_status(till.until_ended(paid=1), "succeeded")
