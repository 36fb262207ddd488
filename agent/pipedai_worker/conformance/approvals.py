"""Checks what a worker does with tool calls that a person must approve. It need not know them."""

from __future__ import annotations

import hashlib
from typing import Any

from pipedai_worker.conformance.lab import (
    Lab,
    Skipped,
    check,
    expect,
    expect_status,
    expect_well_formed,
)
from pipedai_worker.stand_in.mcp_server import Tool

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
        lab.keep_sessions()
        lab.api.tools = {
            "pay": Tool({"name": "pay", "inputSchema": schema}, self._pay),
            "look": Tool(look, lambda _: "nothing"),
        }
        self.run = lab.add(*lines, rules=RULES)
        ungated = lab.add()
        lab.start()
        lab.until_ended(ungated)
        if "approvals" not in lab.api.announced:
            expect(self.run.status == "queued", "It took a run with approvals unannounced.")
            raise Skipped("It does not announce approvals.")

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
    # A worker may park the run all the same, by ways of its own.
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


@check(
    "a run that waits is named in waitingRuns, and no more once the API has said that it has ended"
)
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
