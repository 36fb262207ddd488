"""A run lives as long as its work, is stopped with its cost known, and is paid for as the API says."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from testing.processes.worker_process import until

from pipedai_worker.executors.claude import ClaudeExecutor, mcp_configuration
from tests.jobs import make_job

from . import installed
from .conftest import Machines
from .network import LoopbackNetwork
from .steps import Hang, mcp, say
from .test_tool_call_counts import listed
from .test_tool_calls import results
from .working import API_KEY, SUBSCRIPTION, Machine, Surroundings

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("auth_mode", "header"), [(API_KEY, "x-api-key"), (SUBSCRIPTION, "authorization")]
)
def test_a_worker_that_was_told_nothing_pays_as_the_api_says(
    own_machine: Machines, auth_mode: str, header: str
) -> None:
    machine = own_machine(auth_mode=auth_mode, tells_auth_mode=False)
    both = {
        "ANTHROPIC_API_KEY": "sk-ant-api03-both",
        "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-both",
    }
    with machine.working(**both):
        started = machine.start(say("Paid."))
        run = started.ended()
        assert (run["status"], run["shortMessage"]) == ("succeeded", "Paid."), run["errorMessage"]
    assert started.place.calls() == []
    assert run["toolCalls"] == {"total": 0, "effects": 0, "unknown": 0}
    assert listed(started) == []
    sent = {name.lower(): value for name, value in started.script.requests[0].headers.items()}
    assert sent[header].endswith("both")
    assert json.loads(machine.config.read_text())["authMode"] == auth_mode
    other = "ANTHROPIC_API_KEY" if auth_mode == SUBSCRIPTION else "CLAUDE_CODE_OAUTH_TOKEN"
    assert f"{other} is kept from claude" in machine.log
    assert "both" not in machine.log


def test_a_canceled_run_tells_its_cost(machine: Machine) -> None:
    # Version 2.1.197 gives no result when it is interrupted while the model's API answers.
    started = machine.start(mcp("echo", text="x"), Hang())
    until(lambda: len(started.script.requests) == 2)
    machine.around.site.post(f"/runs/{started.id}/cancel", {})
    run = started.ended()
    assert run["status"] == "canceled"
    assert float(run["costUsd"]) > 0
    assert run["outputTokens"] == 50


def test_a_call_may_take_as_long_as_the_run_and_a_timed_out_run_tells_its_cost(
    machine: Machine,
) -> None:
    # The server's entry says so; without it claude would end a call after 300 s of silence.
    started = machine.start(
        mcp("write", text="x"),
        mcp("nap", seconds=8),
        mcp("write", text="y", seconds=60),
        timeoutSeconds=30,
    )
    run = started.ended()
    assert (run["status"], run["faultClass"]) == ("timed_out", "client")
    assert float(run["costUsd"]) > 0
    assert run["toolCalls"] == {"total": 3, "effects": 2, "unknown": 1}
    _, (text, is_error) = results(started.script.requests[-1])
    assert ("slept 8 s" in text, is_error) == (True, False)


def test_a_stopped_worker_hands_its_run_back_with_the_cost(own_machine: Machines) -> None:
    machine = own_machine()
    with machine.working("--drain-seconds", "0") as worker:
        started = machine.start(mcp("echo", text="x"), Hang())
        until(lambda: len(started.script.requests) == 2)
        worker.send_signal(signal.SIGTERM)
        run = started.ended()
    assert (run["status"], run["faultClass"]) == ("failed", "infra")
    assert float(run["costUsd"]) > 0


def test_a_call_without_an_answer_is_unknown_after_a_crash(own_machine: Machines) -> None:
    machine = own_machine()
    with machine.working() as worker:
        started = machine.start(
            mcp("write", text="x", seconds=300), retryAfterEffects=False, maxRetries=3
        )
        until(started.place.calls)
        worker.kill()
        worker.wait()
    with machine.working():
        run = started.ended()
        assert (run["status"], run["faultClass"]) == ("failed", "infra")
        assert run["toolCalls"] == {"total": 1, "effects": 1, "unknown": 1}
        assert started.place.calls() == [("write", {"text": "x", "seconds": 300})]
        # The run's retry would be the newest of its trigger.
        runs = machine.around.site.get(f"/triggers/{run['triggerId']}/runs")
        assert [each["id"] for each in runs["items"]] == [started.id]


def test_the_servers_entry_decides_how_long_a_call_may_take(
    around: Surroundings, network: LoopbackNetwork, tmp_path: Path
) -> None:
    # The run's limit is 600 s, and so is claude's variable for it. The entry says 2 s, which shows that it counts.
    place, script = around.mcp.place(), around.messages.script(mcp("nap", seconds=30), say("Woke."))
    job = make_job(tmp_path, "Sleep.", model=script.model, timeout_seconds=600)
    entry = json.loads(mcp_configuration(place.url, 2))
    entry["mcpServers"]["trigger"]["headers"] = place.headers
    job.mcp_config.write_text(json.dumps(entry))
    job.environment.update(
        HOME=str(tmp_path), ANTHROPIC_BASE_URL=around.messages.url, CLAUDE_CODE_OAUTH_TOKEN="x"
    )
    argv = network.inside([str(installed.cli())])
    executor = ClaudeExecutor(argv, auth_mode=lambda: SUBSCRIPTION, silence_seconds=0)
    outcome = executor.execute(job).outcome
    assert (outcome.status, outcome.short_message) == ("succeeded", "Woke.")
    ((text, is_error),) = results(script.requests[-1])
    assert is_error
    assert "timed out after 2s" in text
    assert job.environment["MCP_TOOL_TIMEOUT"] == "600000"
