"""A person decides on a tool call before its effect, with the real CLI and a fake API.

What reached the MCP server counts, whatever the CLI says: `written` returns that.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bin import claude

from pipedai_worker.conformance.fake_api import FakeApi, FakeRun
from pipedai_worker.gateway import gate

from . import installed
from .lone_machine import LoneMachine
from .messages_api import MessagesApi
from .network import LoopbackNetwork
from .scenes import Scene, Scenes
from .steps import Step, bash, call, calls, mcp, say
from .test_resuming import COST, money
from .test_tool_calls import results

pytestmark = pytest.mark.long

EFFECTS = [{"tools": "*", "when": "possible_effect"}]
ALLOWING = '{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"allow"}}'
HOST_TOOLS = {"Bash", "Write", "Edit", "NotebookEdit", "WebFetch", "WebSearch"}

AGENT = Path(installed.__file__).resolve().parents[2]


def gated(here: Scene, **fields: Any) -> FakeRun:
    return here.add(**{"retry_mode": "restart", "rules": EFFECTS, **fields})


def writing(*texts: str) -> Iterator[Step]:
    return (mcp("write", text=text) for text in texts)


def written(here: Scene) -> list[str]:
    """Return what was written, in order: the effects of the scene."""
    return [arguments["text"] for name, arguments in here.place.calls() if name == "write"]


def result_of(here: Scene, number: int) -> str:
    """Return what the model was told of its call with this number."""
    return results(here.script.requests[-1])[number][0]


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_an_approved_call_is_made_once(shared_scene: Scenes, version: str) -> None:
    here = shared_scene(*writing("it"), say("Finished."), version=version)
    run = gated(here, record_events="always")
    asked = here.api.until_waiting(run)
    assert (asked["tool"], asked["arguments"]) == ("write", {"text": "it"})
    assert written(here) == []
    parked = run.outcome or {}
    assert money(parked) == pytest.approx(COST)
    here.api.decide(run, "approve")
    ended = here.api.until_ended(run)
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "Finished.")
    assert (written(here), run.spent) == (["it"], 1)
    assert ended["sessionId"] == parked["sessionId"]
    # Each spell tells its own cost and calls.
    assert money(ended) == pytest.approx(COST)
    assert (parked["toolCalls"]["total"], ended["toolCalls"]["total"]) == (0, 1)
    assert "denials" not in ended
    assert "wrote it" in result_of(here, 0)
    assert not HOST_TOOLS.intersection(here.script.requests[0].tools)
    # The events of the second spell follow those of the first.
    here.api.until(lambda: [event["type"] for event in run.events].count("result") == 2)


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_of_several_calls_in_a_turn_the_first_gated_one_waits(
    shared_scene: Scenes, version: str
) -> None:
    both = calls(
        ("mcp__trigger__write", {"text": "a"}),
        ("mcp__trigger__echo", {"text": "r"}),
        ("mcp__trigger__write", {"text": "b"}),
    )
    here = shared_scene(both, *writing("b"), say("Finished."), version=version)
    run = gated(here)
    for text in ("a", "b"):
        assert here.api.until_waiting(run)["arguments"] == {"text": text}
        if text == "a":
            # The ungated call was made at once, and the other gated one refused.
            assert [name for name, _ in here.place.calls()] == ["echo"]
            assert (run.outcome or {})["denials"] == {"total": 1, "tools": ["write"]}
        here.api.decide(run, "approve")
        here.api.until(lambda: run.status in {"claimed", "running"})
    assert here.api.until_ended(run)["status"] == "succeeded"
    assert (written(here), run.spent) == (["a", "b"], 2)
    assert gate.ALONE in result_of(here, 2)


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_a_sub_agent_can_not_ask(shared_scene: Scenes, version: str) -> None:
    begin = call("Agent", description="d", prompt="Write it.", subagent_type="general-purpose")
    here = shared_scene(
        begin, *writing("sub"), say("It was refused."), say("Finished."), version=version
    )
    ended = here.api.until_ended(gated(here))
    assert (ended["status"], written(here)) == ("succeeded", [])
    assert ended["denials"] == {"total": 1, "tools": ["write"]}
    assert any(gate.SUB_AGENT in request.text for request in here.script.requests)


@pytest.mark.parametrize("harm", ["crashes", "missing", "disabled", "edited"])
def test_the_gateway_refuses_without_the_hook(scene: Scenes, tmp_path: Path, harm: str) -> None:
    package = tmp_path / "package"
    shutil.copytree(AGENT / "pipedai_worker", package / "pipedai_worker")
    hook = package / "pipedai_worker/executors/hook.py"
    # The run's own shell has the hook allow everything.
    edit = f"cat > {hook} <<'END'\nprint('{ALLOWING}')\nEND"
    steps = [bash(edit)] if harm == "edited" else []
    here = scene(*steps, *writing("it"), say("Finished."))
    here.machine.use(package)
    own = here.machine.home / ".claude/settings.json"
    own.parent.mkdir()
    own.write_text('{"permissions": {"allow": ["Bash"]}}')
    with here.machine.working():
        here.api.until(here.api.asked)
        if harm == "crashes":
            hook.write_text("raise SystemExit(1)\n")
        elif harm == "missing":
            hook.unlink()
        elif harm == "disabled":
            own.write_text('{"disableAllHooks": true}')
        ended = here.api.until_ended(gated(here, allow_host_tools=harm == "edited"))
    assert (ended["status"], written(here)) == ("succeeded", [])
    assert ended["denials"] == {"total": 1, "tools": ["write"]}
    if harm != "missing":
        # Python's exit code for a missing file is the one by which a hook denies a call.
        assert gate.UNAPPROVED in result_of(here, -1)
    if harm == "edited":
        assert "allow" in hook.read_text()


def test_other_arguments_than_the_approved_ones_are_asked_for_anew(shared_scene: Scenes) -> None:
    here = shared_scene(*writing("one-euro"), say("Finished."), version=claude.PINNED)
    run = gated(here)
    here.api.until_waiting(run)
    # Somebody who can write the session changes the call between the approval and the resume.
    (talk,) = here.machine.home.glob(f".claude/projects/*/{(run.outcome or {})['sessionId']}.jsonl")
    talk.write_text(talk.read_text().replace("one-euro", "all-euros"))
    here.api.decide(run, "approve")
    here.api.until(lambda: run.status in {"claimed", "running"})
    assert here.api.until_waiting(run)["arguments"] == {"text": "all-euros"}
    assert (written(here), run.spent) == ([], 0)
    here.api.decide(run, "reject")
    assert here.api.until_ended(run)["status"] == "succeeded"
    assert written(here) == []


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_the_model_reads_why_its_call_was_rejected_and_goes_on(
    shared_scene: Scenes, version: str
) -> None:
    here = shared_scene(*writing("it"), mcp("echo", text="on"), say("Finished."), version=version)
    run = gated(here)
    here.api.until_waiting(run)
    here.api.decide(run, "reject", "Too expensive, ask Ann.")
    ended = here.api.until_ended(run)
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "Finished.")
    assert [name for name, _ in here.place.calls()] == ["echo"]
    assert "The reason: Too expensive, ask Ann." in result_of(here, 0)
    assert ended["denials"] == {"total": 1, "tools": ["write"]}


@pytest.mark.parametrize("rules", [[], [{"tools": ["echo"], "when": "always"}]])
def test_a_rejected_call_is_not_made_whatever_the_rules_have_become(
    shared_scene: Scenes, rules: list[Any]
) -> None:
    here = shared_scene(*writing("it"), say("Finished."), version=claude.PINNED)
    run = gated(here)
    here.api.until_waiting(run)
    with here.api.lock:
        run.rules = rules
    here.api.decide(run, "reject", "Never.")
    ended = here.api.until_ended(run)
    assert (ended["status"], written(here)) == ("succeeded", [])
    assert "The reason: Never." in result_of(here, 0)
    assert ended["denials"] == {"total": 1, "tools": ["write"]}


def test_a_run_that_expires_or_is_canceled_while_it_waits_does_nothing(
    shared_scene: Scenes,
) -> None:
    here = shared_scene(*writing("a", "b", "c"), version=claude.PINNED)
    for status in ("failed", "canceled"):
        run = gated(here)
        here.api.until_waiting(run)
        with here.api.lock:
            run.status = status
    # The cancel may also come while the call is being parked.
    run = gated(here, cancel_requested=False, resume_until=None)
    here.api.fail("complete", 503)
    here.api.until(lambda: here.api.count("complete", run))
    here.api.cancel(run)
    here.api.until(lambda: run.status == "canceled")
    assert written(here) == []


def test_another_machine_can_not_take_the_run(
    scene: Scenes,
    another_api_at: tuple[FakeApi, str],
    network: LoopbackNetwork,
    messages: MessagesApi,
    tmp_path: Path,
) -> None:
    here = scene(*writing("it"))
    run = gated(here)
    with here.machine.working():
        here.api.until_waiting(run)
    here.api.decide(run, "approve")
    # The first machine never comes back, and the API makes the mistake of giving the run to another one.
    second = LoneMachine(network, messages, tmp_path / "2", installed.cli(), *another_api_at)
    other = another_api_at[0]
    with other.lock:
        run.status = "queued"
        other.runs[run.id] = run
    with second.working():
        ended = other.until_ended(run)
    assert (ended["status"], ended["faultClass"]) == ("failed", "infra")
    assert "sessionId" not in ended
    assert (written(here), run.spent) == ([], 0)
