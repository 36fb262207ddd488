"""The API and the worker let a person decide on a call together, with the real CLI."""

from __future__ import annotations

from typing import Any

import pytest
from testing.processes.worker_process import until

from .conftest import Machines
from .steps import mcp, say
from .working import Machine

pytestmark = pytest.mark.long


def test_a_call_is_rejected_and_another_one_approved_over_a_restart(own_machine: Machines) -> None:
    machine = own_machine()
    site = machine.around.site

    def asked() -> str:
        found = site.get(f"{site.environment}/approvals?status=pending")["items"]
        return next((each["id"] for each in found if each["runId"] == started.id), "")

    with machine.working():
        started = machine.start(
            *(mcp("write", text="all"), mcp("write", text="one"), say("Finished.")),
            approvals=[{"tools": "*", "when": "possible_effect", "approverRole": "owner"}],
        )
        first = until(asked, seconds=60)
        site.post(f"/approvals/{first}/decide", {"decision": "reject", "reason": "Only one."})
        second = until(lambda: asked() not in {"", first} and asked(), seconds=60)
    assert started.shown()["status"] == "waiting"
    assert started.place.calls() == []
    site.post(f"/approvals/{second}/decide", {"decision": "approve"})
    with machine.working():
        ended = started.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "Finished.")
    assert [arguments["text"] for _, arguments in started.place.calls()] == ["one"]
    assert "Only one." in started.script.text
    assert ended["denials"] == {"total": 1, "tools": ["write"]}
    assert site.get(f"/approvals/{second}")["spentAt"]
    assert list(machine.home.glob(".claude/projects/*")) == []


@pytest.mark.parametrize("rules", [[], [{"tools": ["echo"], "approverRole": "owner"}]])
def test_a_call_is_rejected_although_its_rule_was_taken_away_meanwhile(
    machine: Machine, rules: list[Any]
) -> None:
    site = machine.around.site
    started = machine.start(
        *(mcp("write", text="it"), mcp("write", text="more"), say("Finished.")),
        approvals=[{"tools": ["write"], "approverRole": "owner"}],
    )

    def asked() -> Any:
        found = site.get(f"{site.environment}/approvals?status=pending")["items"]
        return next((each for each in found if each["runId"] == started.id), None)

    for number, text in enumerate(("it", "more")):
        approval = until(asked, seconds=60)
        shown = site.get(f"/approvals/{approval['id']}")["arguments"]
        assert text in shown
        if number == 0:
            site.patch(f"/triggers/{approval['triggerId']}", {"approvals": rules})
        reason = {"decision": "reject", "reason": f"Not {text}."}
        site.post(f"/approvals/{approval['id']}/decide", reason)
    ended = started.ended()
    assert (ended["status"], ended["shortMessage"]) == ("succeeded", "Finished.")
    assert started.place.calls() == []
    assert "Not it." in started.script.text
    assert ended["denials"] == {"total": 2, "tools": ["write", "write"]}
