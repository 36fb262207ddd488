"""The API and the worker let a person decide on a call together, with the real CLI (SPEC §27)."""

from __future__ import annotations

import pytest
from testing.processes.worker_process import until

from .conftest import Machines
from .steps import mcp, say

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
