"""Checks what a worker does with runs that look for something new before they start their program."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pipedai_worker.conformance.fake_api import FakeRun
from pipedai_worker.conformance.lab import (
    Lab,
    Skipped,
    check,
    expect,
    expect_status,
    expect_well_formed,
)
from pipedai_worker.stand_in.mcp_server import Tool

# What the tool answers, and the RFC 8785 form of that.
NEWS, CANONICAL = '{"open": [7, 8], "at": 1.0}', b'{"at":1,"open":[7,8]}'
DIGEST = hashlib.sha256(CANONICAL).hexdigest()
BEFORE = {"tool": "news", "arguments": {"of": "today"}, "runIf": "changed", "lastDigest": None}


class Kiosk:
    """The run's MCP server, with the tool `news`."""

    def __init__(self, lab: Lab, *, reads: bool = True, **before: Any) -> None:
        """Hand the worker a run that looks. Raises Skipped if the worker does not announce that it can."""
        self._lab = lab
        self.asked: list[dict[str, Any]] = []
        shown = {"name": "news", "inputSchema": {}, "annotations": {"readOnlyHint": reads}}
        lab.api.tools = {"news": Tool(shown, self._answer)}
        self.run = lab.add("given", before={**BEFORE, **before}, output_schema={})
        lab.start_unless_unable(self.run, "before")

    def _answer(self, arguments: dict[str, Any]) -> str:
        self.asked.append(arguments)
        return NEWS

    def ended(self, *, launched: int) -> dict[str, Any]:
        outcome = self._lab.until_ended(self.run)
        times = self._lab.launched(self.run)
        expect(times == launched, f"It launched the program {times} times.")
        expect_well_formed(self._lab)
        return outcome

    def expect_told(self, outcome: dict[str, Any], *, nothing_new: bool) -> None:
        told = outcome.get("before") or {}
        expect(self.asked == [{"of": "today"}], f"It called the tool with {self.asked}.")
        expect(told.get("digest") == DIGEST, "The digest is not that of the RFC 8785 form.")
        expect(told.get("nothingNew") is nothing_new, f"It told nothingNew of a look as {told}.")


@check("a look that finds nothing new ends the run as succeeded, and no program is launched")
def starts_nothing_for_old_news(lab: Lab) -> None:
    kiosk = Kiosk(lab, lastDigest=DIGEST)
    outcome = kiosk.ended(launched=0)
    expect_status(outcome, "succeeded")
    kiosk.expect_told(outcome, nothing_new=True)
    expect(float(outcome.get("costUsd") or 0) == 0, "It told a cost of a run without a program.")


@check("a look that finds something new launches the program once, with the result in its prompt")
def gives_the_news_to_the_program(lab: Lab) -> None:
    kiosk = Kiosk(lab, lastDigest="0" * 64)
    outcome = kiosk.ended(launched=1)
    expect_status(outcome, "succeeded")
    kiosk.expect_told(outcome, nothing_new=False)
    given = outcome.get("output") or {}
    expect(json.loads(NEWS) in given.values(), f"The prompt has no result of the look: {given}.")


@check("a look with clauses launches the program only if all of them hold for the result")
def looks_by_clauses(lab: Lab) -> None:
    holds = {"path": "/open/0", "op": "gte", "value": 7}
    kiosk = Kiosk(lab, runIf=[holds, {"path": "/open", "op": "contains", "value": 9}])
    kiosk.expect_told(kiosk.ended(launched=0), nothing_new=True)
    hold = lab.add("given", before={**BEFORE, "runIf": [holds], "lastDigest": DIGEST})
    lab.must_end_once(hold)


@check("a look by a tool that may change something is not made, and the run fails as the client's")
def looks_only_by_reading(lab: Lab) -> None:
    kiosk = Kiosk(lab, reads=False)
    outcome = kiosk.ended(launched=0)
    expect_status(outcome, "failed")
    expect(outcome.get("faultClass") == "client", "It does not blame the client.")
    expect(not kiosk.asked, "It called a tool that may change something.")


@check("the output of an earlier run, which the hand-out has, is in the prompt")
def gives_the_previous_output(lab: Lab) -> None:
    ids = {name: FakeRun().id for name in ("runId", "triggerRevisionId")}
    previous = {**ids, "endedAt": "2001-01-01T00:00:00.000Z", "output": (earlier := {"found": 3})}
    run = lab.add("given", previous=previous, output_schema={})
    lab.start()
    given = lab.until_ended(run).get("output") or {}
    if not given:
        raise Skipped("It carries nothing over.")
    expect(earlier in given.values(), f"The prompt has no output of the earlier run: {given}.")
