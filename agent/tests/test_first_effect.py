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
    seen = set()
    for trial in range(TRIALS):
        run = api.add("standin: call write {}\nstandin: sleep 60", mcp_url=api.mcp_url)
        worker = workers.start()
        api.until(lambda run=run: run.status == "running")
        if trial % 2:
            # The API does not answer the heartbeat that tells of the call, or only late.
            api.fail("heartbeat", 503, times=random.randint(1, 3))
        pause = random.uniform(0.0, 1.0)
        with api.lock:
            api.lock.wait_for(lambda run=run: run.calls_taken > 0, timeout=pause)
        worker.process.kill()
        worker.process.wait()
        api.faults.clear()
        counts = run.tool_calls or {"effects": 0}
        assert run.calls_taken <= counts["effects"], (run.calls_taken, counts)
        seen.add((run.calls_taken, counts["effects"]))
        cleaned = workers.start("--once")
        assert cleaned.wait() == 0
        until(lambda run=run: run.outcome is not None)
    print(f"{TRIALS} kills, (calls made, effects told): {sorted(seen)}")
