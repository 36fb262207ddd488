"""The stand-in tells what the real claude tells: both play the same scenarios, and their events look alike.

`test_faults.py` compares what they tell when the model's API fails for ever.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testing.processes.worker_process import until

from pipedai_worker import standin

from .conftest import Machines
from .shapes import differences, kind_of
from .steps import Hang, Status, Step, bash, mcp, output, say
from .working import Machine, Started

pytestmark = pytest.mark.long

PLAIN, OPTIONS, LOGGED_OUT = "plain", "with options", "logged out"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PROGRESS = "tool_progress"


@dataclass(frozen=True)
class Scenario:
    """What the model does for the real claude, and the lines for the stand-in that do the same."""

    steps: tuple[Step, ...]
    lines: str
    # The real claude's machine.
    machine: str = PLAIN
    # The run is canceled when it has told such an event.
    cancel_at: str | None = None
    trigger: dict[str, Any] = field(default_factory=dict)
    # What the real claude's run says at its end; empty if it does not matter.
    says: str = ""


SCENARIOS = {
    "says something": Scenario((say("Hello."),), "success Hello."),
    "calls a tool": Scenario((mcp("echo", text="x"), say("Done.")), 'call echo {"text": "x"}'),
    "calls a tool that fails": Scenario((mcp("fail"), say("Done.")), "call fail"),
    "calls a tool that is denied": Scenario((bash("rm -rf x"), say("Done.")), "deny"),
    "gives an output": Scenario(
        (output({"a": 1}),), 'output {"a": 1}', trigger={"outputSchema": SCHEMA}
    ),
    # Version 2.1.197 ends work in the background by itself.
    "has work in the background": Scenario(
        (bash("sleep 12; echo late", background=True), say("Wait."), say("Late.")),
        "two-turns 1",
        says="Late.",
    ),
    "reaches its turns": Scenario(
        (mcp("echo", text="x"),), 'call echo {"text": "x"}\nstandin: max-turns', OPTIONS
    ),
    "falls back": Scenario(
        (Status(529, times=3), say("Done.")), "retry 529 2\nstandin: fallback", OPTIONS
    ),
    "is not logged in": Scenario((), "auth-error", LOGGED_OUT),
    "tries again": Scenario((Status(529, times=1), say("Done.")), "retry 529"),
    "is stopped while it waits for the model": Scenario((Hang(),), "hang", cancel_at="system/init"),
    "is stopped in a call": Scenario(
        (mcp("nap", seconds=90),), 'call nap {"seconds": 90}', cancel_at=PROGRESS
    ),
}


def test_their_events_have_the_same_order_keys_and_types(own_machine: Machines) -> None:
    machines = {name: own_machine(slots=8) for name in (PLAIN, OPTIONS, LOGGED_OUT)}
    give_options(machines[OPTIONS], "--max-turns 1 --fallback-model claude-haiku-4-5-scripted")
    stand_in = own_machine(slots=8)
    stand_in.cli = Path(standin.__file__)
    with ExitStack() as stack:
        for name, machine in machines.items():
            without = {"CLAUDE_CODE_OAUTH_TOKEN": ""} if name == LOGGED_OUT else {}
            stack.enter_context(machine.working(**without))
        stack.enter_context(stand_in.working())
        stack.enter_context(machines[PLAIN].allowing("Bash(sleep:*)", "Bash(echo:*)"))

        def start(each: Scenario) -> tuple[Started, Started]:
            return (
                machines[each.machine].start(*each.steps, **each.trigger),
                stand_in.start(prompt=f"standin: {each.lines}", **each.trigger),
            )

        # What takes longest comes first.
        started = {name: start(each) for name, each in reversed(SCENARIOS.items())}
        # A worker may hear of a cancel 20 s later, so all are canceled before any is waited for.
        for name, both in started.items():
            for run in both:
                cancel(run, SCENARIOS[name])
        told = [differences(name, *map(told_by, both)) for name, both in started.items()]
        for name, (real, _) in started.items():
            assert SCENARIOS[name].says in (real.shown()["shortMessage"] or ""), name
    assert not any(told), "\n".join(line for lines in told for line in lines)


def give_options(machine: Machine, options: str) -> None:
    """Give the machine's CLI further options."""
    program = machine.directory / "claude"
    program.write_text(f'#!/bin/sh\nexec {machine.cli} "$@" {options}\n')
    program.chmod(0o755)
    machine.cli = program


def cancel(run: Started, scenario: Scenario) -> None:
    """Cancel a run once it has told what the scenario says, if it says anything of that kind."""
    moment = scenario.cancel_at
    if moment is not None:
        until(lambda: moment in [kind_of(event) for event in run.events()], seconds=90)
        until(lambda: run.script.requests or run.machine.cli == Path(standin.__file__))
        run.machine.around.site.post(f"/runs/{run.id}/cancel", {})


def told_by(run: Started) -> list[dict[str, Any]]:
    """Wait for the run's end, and return all of its events."""
    run.ended(seconds=150)
    return run.events()
