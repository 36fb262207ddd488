"""A worker is killed, and its API away, in each step from the parking of a call to its answer, with the real CLI.

No approved call is ever made twice, and none without its approval. APPROVAL_TRIALS in the environment says in how many
trials the kills come at random moments; their counts are printed. A trial takes some 3 s.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipedai_worker.conformance.fake_api import DROP, FakeApi, FakeRun

from .messages_api import MessagesApi
from .scenes import Scene, Scenes
from .steps import mcp, say
from .test_approvals import gated, written

pytestmark = pytest.mark.long

AWAY = 503
TRIALS = int(os.environ.get("APPROVAL_TRIALS", "2"))
Ready = Callable[[], Any]


@contextmanager
def killed(here: Scene, ready: Ready) -> Iterator[None]:
    """Run the worker until `ready()`, kill it, let the block change the API, and run it again."""
    with here.machine.working() as worker:
        here.api.until(ready)
        kill(worker)
    with here.api.lock:
        here.api.faults.clear()
    with here.machine.working():
        yield


def kill(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()


@pytest.fixture
def here(scene: Scenes) -> Scene:
    return scene(mcp("write", text="it"), say("Finished."))


def decided(here: Scene, run: FakeRun) -> None:
    """Approve the call once it waits."""
    here.api.until_waiting(run)
    here.api.decide(run, "approve")


def expect(here: Scene, run: FakeRun, *, calls: int, unknown: int = 0) -> dict[str, Any]:
    """Check that the run ends, with so many calls made, of which so many have no answer."""
    ended = here.api.until_ended(run)
    assert len(written(here)) == calls
    assert calls <= run.spent <= 1
    counts = ended.get("toolCalls") or {}
    assert counts.get("unknown", 0) == unknown
    return ended


@pytest.mark.parametrize("fault", [AWAY, DROP], ids=["away", "lost"])
def test_killed_while_it_reports_that_the_run_waits(here: Scene, fault: Any) -> None:
    run = gated(here)
    here.api.fail("complete", fault, times=1_000)
    with killed(here, lambda: here.api.count("complete", run) == (1 if fault == DROP else 2)):
        decided(here, run)
        assert expect(here, run, calls=1)["status"] == "succeeded"
    assert here.machine.left() == []


def test_killed_while_the_run_waits(here: Scene) -> None:
    run = gated(here)
    with killed(here, lambda: run.status == "waiting"):
        decided(here, run)
        assert expect(here, run, calls=1)["status"] == "succeeded"


@pytest.mark.parametrize("fault", [AWAY, DROP], ids=["away", "lost"])
def test_killed_while_it_takes_the_run_again(here: Scene, fault: Any) -> None:
    run = gated(here)
    with here.machine.working() as worker:
        here.api.until_waiting(run)
        kill(worker)
    here.api.decide(run, "approve")
    here.api.fail("claim-next", fault, times=1_000)
    asked = here.api.count("claim-next")
    with killed(here, lambda: here.api.count("claim-next") > asked + 1):
        assert expect(here, run, calls=1)["status"] == "succeeded"


@pytest.mark.parametrize("fault", [AWAY, DROP], ids=["away", "lost"])
def test_killed_while_it_spends_the_approval(here: Scene, fault: Any) -> None:
    run = gated(here)
    with here.machine.working():
        here.api.until_waiting(run)
    here.api.fail("spend", fault, times=1_000)
    here.api.decide(run, "approve")
    with killed(here, lambda: here.api.count("spend", run)):
        # Nobody knows whether the call was made, so it counts as one without an answer, and is not made anew.
        ended = expect(here, run, calls=0, unknown=1)
    assert (ended["status"], ended["faultClass"]) == ("failed", "infra")


@pytest.mark.parametrize(("fault", "calls"), [(AWAY, 1), (DROP, 0)], ids=["away", "lost"])
def test_the_api_is_away_while_the_approval_is_spent(here: Scene, fault: Any, calls: int) -> None:
    """If the answer is lost, the approval is used up, and the call is not made."""
    run = gated(here)
    with here.machine.working():
        here.api.fail("spend", fault, times=1)
        decided(here, run)
        here.api.until(lambda: run.status not in {"queued", "claimed", "running"})
        assert expect(here, run, calls=calls)["status"] == "succeeded"
        assert here.api.count("spend", run) == 2


def test_killed_while_the_call_is_made(scene: Scenes) -> None:
    here = scene(mcp("write", text="it", seconds=300), say("Finished."))
    run = gated(here)
    with here.machine.working():
        here.api.until_waiting(run)
    here.api.decide(run, "approve")
    with killed(here, lambda: written(here)):
        expect(here, run, calls=1, unknown=1)


def test_killed_while_it_reports_the_end(here: Scene) -> None:
    run = gated(here)
    with here.machine.working():
        here.api.until_waiting(run)
    here.api.fail("complete", AWAY, times=1_000)
    here.api.decide(run, "approve")
    with killed(here, lambda: here.api.count("complete", run) == 2):
        assert expect(here, run, calls=1)["status"] == "succeeded"


@pytest.mark.timeout(7200)
def test_kills_at_random_moments(scene: Scenes, messages: MessagesApi) -> None:
    here = scene(mcp("write", text="it"), say("Finished."))
    began, run = time.monotonic(), gated(here)
    with here.machine.working():
        decided(here, run)
        expect(here, run, calls=1)
    # The kills fall at any moment of a run, however fast the machine is.
    pace = time.monotonic() - began
    counts = {"trials": 0, "kills": 0, "executed": 0, "twice": 0, "unapproved": 0, "asked": 0}
    # There are more trials until one has come as far as the question, because the others show less.
    while counts["trials"] < TRIALS or not counts["asked"]:
        here.script = messages.script(mcp("write", text="it"), say("Finished."))
        run = gated(here)
        before, end = len(written(here)), time.monotonic() + 10 * pace
        while run.status not in {"succeeded", "failed"} and time.monotonic() < end:
            with here.machine.working() as worker:
                counts["kills"] += _wait(here.api, run, random.uniform(0.05, 1.0) * pace)
                kill(worker)
            if run.status == "waiting":
                counts["asked"] += 1
                here.api.decide(run, "approve")
        made = len(written(here)) - before
        counts["trials"] += 1
        counts["executed"] += made
        counts["twice"] += made > 1
        counts["unapproved"] += made > run.spent
        # The machine has become slower if no trial comes so far.
        pace *= 1 if counts["asked"] else 1.5
    print(counts)
    assert (counts["twice"], counts["unapproved"]) == (0, 0)


def _wait(api: FakeApi, run: FakeRun, seconds: float) -> bool:
    """Wait for so long, or until the run has ended; return whether it is to be killed."""
    with api.lock:
        return not api.lock.wait_for(lambda: run.status in {"succeeded", "failed"}, seconds)
