"""A run that was stopped in the middle goes on in its session, and repeats no tool call.

The API is a fake one: it hands out a retry as the real one does, with the session of the run that it retries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bin import claude
from testing.processes.worker_process import until

from pipedai_worker.conformance.fake_api import FakeApi

from . import installed
from .lone_machine import LoneMachine
from .messages_api import MessagesApi, Request
from .network import LoopbackNetwork
from .scenes import Scene, Scenes
from .steps import Limit, mcp, say
from .test_tool_calls import results

pytestmark = pytest.mark.long

# What one answer of the scripted model costs, and how many tokens it has.
COST, TOKENS = 0.00375, 50


def money(outcome: dict[str, Any]) -> float:
    return float(outcome["costUsd"])


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_a_run_stopped_by_a_usage_limit_goes_on_after_it(
    shared_scene: Scenes, version: str
) -> None:
    here = shared_scene(
        *(mcp("write", text="first"), Limit(600, times=1), Limit(700, times=1)),
        *(mcp("write", text="second"), say("Finished.")),
        version=version,
    )
    run = here.add()
    limited = here.api.until_ended(run)
    assert (limited["status"], limited["faultClass"]) == ("failed", "infra")
    assert limited["usageLimit"].keys() == {"resetsAt", "kind"}
    assert limited["usageLimit"]["kind"] == "five_hour"
    assert 0 < limited["retryAfterSeconds"] <= 600
    # The limit holds once more, before the model has said anything.
    again = here.retry(run)
    still = here.api.until_ended(again)
    assert still["sessionId"] == limited["sessionId"]
    assert money(still) == 0
    ended = here.api.until_ended(last := here.retry(again))
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "Finished.")
    assert {body.get("sessionId") for body in here.api.bodies("heartbeat", last)} <= {
        None,
        limited["sessionId"],
    }
    assert [arguments["text"] for _, arguments in here.place.calls()] == ["first", "second"]
    # The model saw what the first call had answered, and each run tells its own cost and tokens alone.
    assert [text for text, _ in results(here.script.requests[-1])] == [
        '{"result":"wrote first"}',
        '{"result":"wrote second"}',
    ]
    assert money(limited) == pytest.approx(COST)
    assert money(ended) == pytest.approx(2 * COST)
    assert (limited["outputTokens"], ended["outputTokens"]) == (TOKENS, 2 * TOKENS)
    here.machine.tidied()


def test_a_run_stopped_in_a_tool_call_is_told_that_the_call_had_no_answer(scene: Scenes) -> None:
    here = scene(
        *(mcp("write", text="first"), mcp("write", text="second", seconds=300)),
        say("Finished."),
    )
    run = here.add()
    with here.machine.working() as worker:
        until(lambda: len(here.place.calls()) == 2)
        worker.kill()
        worker.wait()
    with here.machine.working():
        killed = here.api.until_ended(run)
        assert killed["toolCalls"] == {"total": 2, "effects": 2, "unknown": 1}
        # Claude outlived its worker for a moment, so the model may have said that it is finished before.
        ended = here.api.until_ended(here.retry(run))
    assert ended["status"] == "succeeded"
    assert len(here.place.calls()) == 2
    assert 'may have taken effect: ["write"]' in told(here.script.requests[-1])
    assert here.machine.left() == []


def test_a_worker_that_is_stopped_does_not_let_its_call_count_as_rejected(scene: Scenes) -> None:
    here = scene(mcp("write", text="only", seconds=300), say("Finished."))
    run = here.add()
    with here.machine.working("--drain-seconds", "0"):
        until(here.place.calls)
    assert (run.outcome or {})["faultClass"] == "infra"
    with here.machine.working():
        ended = here.api.until_ended(here.retry(run))
    assert ended["shortMessage"] == "Finished."
    assert len(here.place.calls()) == 1
    assert 'may have taken effect: ["write"]' in told(here.script.requests[-1])


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_a_session_that_claude_refuses_is_judged_by_its_effects(
    shared_scene: Scenes, version: str
) -> None:
    here = shared_scene(
        Limit(600, times=1), mcp("write", text="once"), Limit(600, times=1), version=version
    )
    run = here.add()
    here.api.until_ended(run)
    here.conversation().write_text("")
    anew = here.retry(run)
    limited = here.api.until_ended(anew)
    # It had no effects, so it began anew, with the run's own prompt.
    assert "Write it." in told(here.script.requests[1])
    assert limited["sessionId"] != (run.outcome or {})["sessionId"]
    here.conversation().write_text("")
    ended = here.api.until_ended(here.retry(anew))
    assert (ended["status"], ended["faultClass"]) == ("failed", "infra")
    assert "sessionId" not in ended
    assert "(had_effects)" in ended["errorMessage"]
    assert len(here.place.calls()) == 1
    here.machine.tidied()


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_a_run_that_reaches_its_cost_limit_is_the_clients_fault(
    shared_scene: Scenes, version: str
) -> None:
    here = shared_scene(*(mcp("write", text=text) for text in "abc"), version=version)
    ended = here.api.until_ended(here.add(max_cost_usd="0.0050"))
    assert (ended["status"], ended["faultClass"]) == ("failed", "client")
    assert "cost limit of $0.005." in ended["shortMessage"]
    assert money(ended) == pytest.approx(2 * COST)
    here.machine.tidied()


def test_two_workers_of_one_machine_stay_apart(
    scene: Scenes,
    another_api_at: tuple[FakeApi, str],
    network: LoopbackNetwork,
    messages: MessagesApi,
    tmp_path: Path,
) -> None:
    steps = (mcp("write", text="first"), Limit(600, times=1), mcp("write", text="second"))
    one = scene(*steps, say("One."))
    machine = LoneMachine(network, messages, tmp_path, installed.cli(), *another_api_at, "worker-2")
    two = Scene(machine, another_api_at[0], one.place, messages.script(*steps, say("Two.")))
    with one.machine.working(), two.machine.working():
        runs = [(each, each.add()) for each in (one, two)]
        for each, run in runs:
            each.api.until_ended(run)
        assert len({(run.outcome or {})["sessionId"] for _, run in runs}) == 2
        # The other worker has no such session.
        foreign = two.api.add(
            "x", resume_session_id=(runs[0][1].outcome or {})["sessionId"], retry_mode="resume"
        )
        assert "(had_effects)" in two.api.until_ended(foreign)["errorMessage"]
        ended = [each.api.until_ended(each.retry(run))["shortMessage"] for each, run in runs]
    assert ended == ["One.", "Two."]
    assert len(one.place.calls()) == 4
    assert one.machine.left() == []


def told(request: Request) -> str:
    """Return all texts that a request tells the model as the user's."""
    texts = [
        block["text"]
        for message in request.content["messages"]
        if message["role"] == "user" and isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "text"
    ]
    return "\n".join(texts)
