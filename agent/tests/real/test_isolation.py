"""A run reads and reaches nothing but what its trigger says, whatever its prompt and payload hold."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from uuid import uuid4

import pytest
from bin import claude
from testing.processes.worker_process import until

from .conftest import Machines
from .steps import Hang, bash, call, mcp, say
from .working import Machine, Surroundings

pytestmark = pytest.mark.long


def test_runs_at_the_same_time_can_not_find_or_message_each_other(machine: Machine) -> None:
    marker = f"message-{uuid4().hex}"
    with machine.allowing("SendMessage", "ListAgents"):
        waiting = machine.start(say("I waited.", after=6), prompt="Wait.")
        until(lambda: waiting.script.requests)
        sender = machine.start(
            call("ListAgents"), call("SendMessage", to="work", message=marker), say("I tried.")
        )
        run = sender.ended()
        assert waiting.ended()["shortMessage"] == "I waited."
    assert run["shortMessage"] == "I tried."
    for request in (*sender.script.requests, *waiting.script.requests):
        assert not {"SendMessage", "ListAgents"} & set(request.tools)
    assert marker not in waiting.script.text
    assert "Peer sessions" not in sender.script.text


def leftovers(machine: Machine, *marks: str) -> list[str]:
    """Return what lies about on the machine and has one of the marks in its name or content."""
    found = []
    for path in [*machine.home.rglob("*"), *machine.temporary.rglob("*")]:
        if ".pipedai" in path.parts:
            continue
        content = path.read_text(errors="replace") if path.is_file() else ""
        if any(
            mark in str(path.relative_to(machine.directory)) or mark in content for mark in marks
        ):
            found.append(str(path))
    return found


@pytest.mark.parametrize("version", claude.VERSIONS)
def test_nothing_of_a_run_stays_on_the_machine_and_the_tokens_of_sub_agents_are_told(
    own_machine: Machines, version: str
) -> None:
    machine = own_machine(version)
    mark = f"mark-{uuid4().hex}"
    sub_agent: dict[str, Any] = {
        "description": mark,
        "prompt": mark,
        "subagent_type": "general-purpose",
        "run_in_background": False,
    }
    with machine.working(), machine.allowing("Bash", "Write", "Task", "Agent"):
        started = machine.start(
            bash(f"echo {mark}"),
            call("Write", file_path="note.txt", content=mark),
            mcp("echo", text=mark),
            mcp("big", kib=400),
            call("Task", **sub_agent),
            say("Done."),
            prompt=mark,
            payload=mark,
        )
        run = started.ended()
        assert run["status"] == "succeeded", run["errorMessage"]
        # The sub-agent made a request as well, at least.
        assert len(started.script.requests) > 6
        assert run["outputTokens"] == 50 * len(started.script.requests)
        assert leftovers(machine, mark, "pipedai-run") == []
        assert list(machine.home.rglob(f"*{run['sessionId']}*")) == []
        assert list(machine.temporary.iterdir()) == []


def test_nothing_of_a_run_stays_after_its_worker_was_killed(own_machine: Machines) -> None:
    machine = own_machine()
    mark = f"mark-{uuid4().hex}"
    steps = (mcp("echo", text=mark), bash(f"echo {mark}"), Hang())
    with machine.allowing("Bash"), machine.working() as worker:
        both = [machine.start(*steps, prompt=mark) for _ in range(2)]
        until(lambda: all(len(each.script.requests) == 3 for each in both))
        worker.kill()
        worker.wait()
    # One of the two has lost its claude in the same way. The worker's next start ends the other one.
    held = machine.config.with_name("worker.state") / machine.worker_id / "held"
    os.killpg(json.loads((held / f"{both[0].id}.json").read_text())["pid"], signal.SIGKILL)
    with machine.working():
        for each in both:
            run = each.ended()
            assert (run["status"], run["faultClass"]) == ("failed", "infra")
        assert leftovers(machine, mark, "pipedai-run") == []
        assert list((machine.home / ".claude" / "sessions").glob("*")) == []
        assert list(machine.temporary.iterdir()) == []


def test_a_run_has_the_accounts_own_settings_alone_and_none_of_the_workers_secrets(
    around: Surroundings, own_machine: Machines
) -> None:
    machine = own_machine()
    above, own = f"above-{uuid4().hex}", f"own-{uuid4().hex}"
    (machine.temporary / "CLAUDE.md").write_text(f"Say {above}.")
    (machine.temporary / ".claude").mkdir()
    (machine.temporary / ".claude" / "settings.json").write_text(
        json.dumps({"env": {"ABOVE": above}, "permissions": {"allow": ["Bash"]}})
    )
    settings = {"permissions": {"allow": ["Bash"]}, "env": {"OWN": own}}
    with machine.working(), machine.settled(**settings):
        started = machine.start(
            bash("env; cat /proc/self/environ | tr '\\0' '\\n'"),
            bash("echo $OWN $ABOVE"),
            say("Told."),
        )
        assert started.ended()["shortMessage"] == "Told."
    assert above not in started.script.text
    assert own in started.script.text
    # What claude logs in with is claude's own business, and never the model's.
    assert around.messages.leaked(machine.secrets["a variable of the worker"]) == []
    assert around.messages.leaked(machine.secrets["the worker's token"]) == []
