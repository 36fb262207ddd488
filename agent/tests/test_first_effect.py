"""A worker is killed at random moments around a run's first call that may change something.

Once the call may have gone out, the API was told of it, and so never retries the run. A run of which the API was told
nothing has changed nothing, so a retry is safe. FIRST_EFFECT_TRIALS in the environment is the number of kills.
"""

from __future__ import annotations

import os
import random

from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.stand_in.mcp_server import Tool

from .conftest import Workers, until

TRIALS = int(os.environ.get("FIRST_EFFECT_TRIALS", "6"))


def test_no_call_goes_out_before_the_api_was_told_of_it(api: FakeApi, workers: Workers) -> None:
    shown = {"name": "write", "inputSchema": {"type": "object"}}
    api.tools = {"write": Tool(shown, lambda _: "done")}
    # The API answers the heartbeat that tells of the call at once, or only at a later try.
    seen = [killed(api, workers, refusals=trial % 4) for trial in range(TRIALS)]
    print(f"{TRIALS} kills, by calls made and effects told: {sorted(set(seen))}")


def killed(api: FakeApi, workers: Workers, *, refusals: int) -> tuple[int, int]:
    """Kills a worker at a random moment of a run. Returns how many calls it has made, and how many it has told of."""
    run = api.add("standin: call write {}\nstandin: sleep 3", mcp_url=api.mcp_url)
    worker = workers.start()
    api.until(lambda: run.status == "running")
    if refusals:
        api.fail("heartbeat", 503, times=refusals)
    with api.lock:
        api.lock.wait_for(lambda: run.calls_taken > 0, timeout=random.uniform(0.0, 1.0))
    worker.process.kill()
    worker.process.wait()
    api.faults.clear()
    told = (run.tool_calls or {"effects": 0})["effects"]
    made = run.calls_taken
    assert made <= told
    # The next process tells how the run ended.
    assert workers.start("--once").wait() == 0
    until(lambda: run.outcome is not None)
    return made, told
