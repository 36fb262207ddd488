"""The real CLI is started only when a look has found something new, and gets what was seen with its prompt."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Machines
from .reply import Message
from .steps import Turn, say
from .working import Machine, Started

pytestmark = pytest.mark.long


def test_of_ten_runs_those_two_start_the_cli_before_which_the_answer_has_changed(
    machine: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "headlines"
    file.write_text("Rain in Rome.")
    before = {"tool": "headlines", "arguments": {"file": str(file)}}
    first = machine.start(
        say("It rains."),
        say("The sun shines."),
        prompt="What is new?",
        before=before,
        carry="output",
        recordEvents="always",
    )
    trigger = f"/triggers/{first.shown()['triggerId']}"
    started = [first]
    for number in range(1, 11):
        if number > 1:
            if number == 6:
                file.write_text("Sun in Rome.")
            run_id = machine.around.site.post(f"{trigger}/run", {})["id"]
            started.append(Started(machine, run_id, first.script, first.place))
        assert started[-1].ended()["status"] == "succeeded", number
    shown: list[dict[str, Any]] = [each.shown() for each in started]
    quiet = [number for number, run in enumerate(shown, 1) if run["nothingNew"]]
    assert quiet == [2, 3, 4, 5, 7, 8, 9, 10]
    for number in quiet:
        run = shown[number - 1]
        assert (run["costUsd"], run["sessionId"], run["inputTokens"]) == ("0", None, None)
        assert run["toolCalls"] == {"total": 1, "effects": 0, "unknown": 0}
        assert started[number - 1].events() == []
    assert [run["shortMessage"] for run in shown if not run["nothingNew"]] == [
        "It rains.", "The sun shines.",
    ]  # fmt: skip
    # Each of the two runs asked the model once, and no other run did.
    asked = [request.text for request in first.script.requests]
    assert len(asked) == 2
    assert "Rain in Rome." in asked[0]
    assert ("Sun in Rome." in asked[1], "It rains." in asked[1]) == (True, True)
    assert first.place.calls() == [("headlines", {"file": str(file)})] * 10


def test_a_worker_that_is_killed_at_any_moment_loses_no_change_and_tells_each_once(
    own_machine: Machines, tmp_path: Path
) -> None:
    """Each trial costs three seconds. Twenty trials, by LOOK_TRIALS, are for those who change the order of things."""
    machine, file, moments = own_machine(), tmp_path / "headlines", random.Random(31)
    script = machine.around.messages.script(Turn(Message("Seen."), times=None))
    place, site = machine.around.mcp.place(), machine.around.site
    made = site.post(
        f"{site.environment}/triggers",
        {
            "name": "Killed",
            "prompt": "What is new?",
            "model": script.model,
            "workerId": machine.worker_id,
            "mcpUrl": place.url,
            "mcpHeaders": place.headers,
            "maxRetries": 0,
            "before": {"tool": "headlines", "arguments": {"file": str(file)}},
        },
    )
    for trial in range(int(os.environ.get("LOOK_TRIALS", "3"))):
        file.write_text(f"Headline {trial}.")
        runs: list[Started] = []

        def queue(runs: list[Started] = runs) -> Started:
            run_id = site.post(f"/triggers/{made['id']}/run", {})["id"]
            runs.append(Started(machine, run_id, script, place))
            return runs[-1]

        with machine.working() as worker:
            queue()
            time.sleep(moments.uniform(0.2, 2.5))
            worker.kill()
            worker.wait()
        with machine.working():
            while runs[-1].ended()["status"] != "succeeded":
                queue()
            assert queue().ended()["nothingNew"] is True
        news = [run for run in (each.shown() for each in runs) if not run["nothingNew"]]
        assert [run["status"] for run in news].count("succeeded") == 1, trial
        # A run starts the CLI once at most.
        asked = [request for request in script.requests if f"Headline {trial}." in request.text]
        assert 1 <= len(asked) <= len(news), trial
