"""The API and the worker resume a run together, with the real CLI."""

from __future__ import annotations

from typing import Any

import pytest
from testing.processes.worker_process import until

from .conftest import Machines
from .steps import Limit, mcp, say
from .test_resuming import COST

pytestmark = pytest.mark.long


def test_a_run_stopped_by_a_usage_limit_is_resumed_when_it_is_lifted(own_machine: Machines) -> None:
    machine = own_machine()
    site = machine.around.site
    with machine.working():
        started = machine.start(
            *(mcp("write", text="first"), Limit(600, times=1)),
            *(mcp("write", text="second"), say("Finished.")),
            retryMode="resume",
        )
        limited = started.ended()
        assert (limited["status"], limited["faultClass"]) == ("failed", "infra")
        worker = f"/workers/{machine.worker_id}"
        assert site.get(worker)["limitedUntil"]
        # Nobody waits for the limit: an admin lets the worker try at once.
        site.patch(worker, {"limitedUntil": None})

        def retried() -> Any:
            runs = site.get(f"/triggers/{limited['triggerId']}/runs")["items"]
            return [each for each in runs if each["retryOfRunId"] == started.id and each["endedAt"]]

        (retry,) = until(retried, seconds=60)
    assert (retry["status"], retry["shortMessage"]) == ("succeeded", "Finished.")
    assert retry["sessionId"] == limited["sessionId"]
    assert [arguments["text"] for _, arguments in started.place.calls()] == ["first", "second"]
    assert [float(limited["costUsd"]), float(retry["costUsd"])] == pytest.approx([COST, 2 * COST])
    assert list(machine.home.glob(".claude/projects/*")) == []
