"""A run that can't be carried out fails with the right fault class, as claude's own signals say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from bin import claude

from pipedai_worker import standin

from .conftest import Machines
from .network import LoopbackNetwork
from .shapes import differences
from .steps import Broken, Cut, Hang, Limit, Stall, Status, Step, call, say
from .working import API_KEY, SUBSCRIPTION, Machine, Started, Surroundings

pytestmark = pytest.mark.long

# A run of this time limit leaves claude some 7 s for its own retries.
LIMIT_SECONDS = 60

# How each run ends whose model's API answers so for ever: fault class, and a part of the sentence. The last is the line
# for the stand-in that does the same, if it can.
API_ERRORS: dict[str, tuple[Step, str, str, str]] = {
    "400": (Status(400), "client", "answered 400 (invalid_request", "api-error 400"),
    "403": (Status(403), "client", "answered 403", "api-error 403"),
    "404": (Status(404), "client", "answered 404", "api-error 404"),
    "401": (Status(401), "client", "answered 401", "api-error 401"),
    "413": (Status(413), "client", "413", "api-error 413"),
    "429": (Status(429), "infra", "usage limit", "api-error 429"),
    "500": (Status(500), "infra", "500", "api-error 500"),
    "529": (Status(529), "infra", "529", "api-error 529"),
    "reset": (Cut(), "infra", "API failed", "api-error cut"),
    "cut": (Cut(inside=True), "infra", "API failed", ""),
    "broken": (Broken(), "infra", "API", ""),
    # The usage limit comes last, because a worker gets no other run after it.
    "limit": (Limit(600), "infra", "usage limit is reached", "rate-limit 600"),
}
# Claude treats these otherwise if an API key pays.
OF_A_KEY = ("401", "429", "529", "limit")


@pytest.mark.parametrize("auth_mode", [SUBSCRIPTION, API_KEY])
def test_the_models_api_fails_for_ever(own_machine: Machines, auth_mode: str) -> None:
    machine = own_machine(auth_mode=auth_mode, slots=6)
    with machine.working():
        failed = failing(
            {
                name: partial(machine.start, step)
                for name, (step, *_) in API_ERRORS.items()
                if auth_mode == SUBSCRIPTION or name in OF_A_KEY
            }
        )
    for name, each in failed.items():
        _, fault_class, sentence, _ = API_ERRORS[name]
        run = each.shown()
        assert (run["status"], run["faultClass"]) == ("failed", fault_class), (name, run)
        assert sentence in run["errorMessage"], name
    # With a subscription, claude says when its limit is lifted.
    lifted = "It is lifted at 20" in failed["limit"].shown()["errorMessage"]
    assert lifted == (auth_mode == SUBSCRIPTION)
    if auth_mode == SUBSCRIPTION:
        the_stand_in_tells_the_same(own_machine(slots=6), failed)


def the_stand_in_tells_the_same(machine: Machine, failed: Mapping[str, Started]) -> None:
    """Let the stand-in play what claude has told of, and compare their events."""
    machine.cli = Path(standin.__file__)
    with machine.working():
        played = failing(
            {
                name: partial(machine.start, prompt=f"standin: {line}")
                for name, (*_, line) in API_ERRORS.items()
                if line
            }
        )
    told = [differences(name, failed[name].events(), run.events()) for name, run in played.items()]
    assert not any(told), "\n".join(line for lines in told for line in lines)


def failing(starts: Mapping[str, Callable[..., Started]]) -> dict[str, Started]:
    """Start these runs, wait for their ends, and return them. The last begins when the others have ended."""
    *names, last = starts
    started = {name: starts[name](timeoutSeconds=LIMIT_SECONDS) for name in names}
    for each in started.values():
        each.ended(seconds=180)
    started[last] = starts[last](timeoutSeconds=LIMIT_SECONDS)
    started[last].ended(seconds=180)
    return started


def test_the_models_api_hangs_before_its_answer_or_inside(
    own_machine: Machines, network: LoopbackNetwork
) -> None:
    machine = own_machine()
    # Claude watches the pauses in an answer only if it calls Anthropic's own API, which it is made to believe here.
    believes = "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL"
    with machine.working("--pass-env", believes, **{believes: "1"}):
        for_ever = machine.start(Hang(), timeoutSeconds=50)
        inside = machine.start(Stall(600), say("Recovered."), timeoutSeconds=120)
        run = for_ever.ended()
        # Claude itself gives up, or is stopped while it tries again, as a busy machine takes longer to start it.
        assert run["status"] in {"failed", "timed_out"}
        assert run["faultClass"] == "infra"
        assert "API" in run["errorMessage"]
        assert inside.ended()["shortMessage"] == "Recovered."
    # Believing that, claude looks its own API up.
    assert set(network.strangers()) <= {"DNS for api.anthropic.com"}


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_claude_is_stopped_if_it_can_not_connect_and_judged_if_it_never_tried(
    around: Surroundings, machine_of: Machines, version: str
) -> None:
    machine = machine_of(version)
    # The server answers the worker's own question, and nobody later.
    early = machine.start(say("Too late.", after=60), place=around.mcp.place("later-503"))
    run = early.ended()
    assert (run["status"], run["faultClass"]) == ("failed", "infra")
    assert "not connected to the run's MCP server (failed)" in run["errorMessage"]
    with machine.settled(deniedMcpServers=[{"serverName": "trigger"}]):
        # Claude says nothing of this server, so only the run's end is judged.
        late = machine.start(say("I had no tools."))
        run = late.ended()
    assert (run["status"], run["faultClass"]) == ("failed", "infra")
    assert "not connected to the run's MCP server (not configured)" in run["errorMessage"]
    assert late.script.requests


def test_a_tool_call_that_a_hook_puts_off_is_no_success(machine: Machine) -> None:
    answer = {"hookEventName": "PreToolUse", "permissionDecision": "defer"}
    command = f"echo '{json.dumps({'hookSpecificOutput': answer})}'"
    hook = {"matcher": "mcp__trigger__echo", "hooks": [{"type": "command", "command": command}]}
    with machine.settled(hooks={"PreToolUse": [hook]}):
        run = machine.run(call("mcp__trigger__echo", text="x"), say("Never said."))
    assert (run["status"], run["faultClass"]) == ("failed", "client")
    assert "tool_deferred" in run["errorMessage"]
