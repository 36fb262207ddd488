"""Checks a worker against an API that is older or newer than itself."""

from __future__ import annotations

from typing import Any

from pipedai_worker.conformance.checks import check
from pipedai_worker.conformance.fake_api import DROP
from pipedai_worker.conformance.fake_run import FakeRun
from pipedai_worker.conformance.lab import Lab, expect, expect_few_polls, expect_status

NEWER = {"protocol": 9, "hints": {"x": [1, {"y": None}]}, "status": "paused"}


@check("an older API, which holds no polls, is asked again without a hot loop")
def works_without_held_polls(lab: Lab) -> None:
    lab.api.long_polls = False
    lab.start()
    lab.until(lambda: lab.api.count("poll"), "It never polled.")
    expect_few_polls(lab, "polled an API that holds no polls")
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check("an older API, which tells no times, neither its own nor a lease's, is worked with")
def works_without_times(lab: Lab) -> None:
    lab.api.tells_times = False
    run = lab.add("sleep 8")
    lab.start()
    expect_status(lab.until_ended(run, times=2), "succeeded")
    expect(lab.api.count("heartbeat", run) > 0, "It sent no heartbeat while the run went on.")


@check("an older API, which knows no claimId and refuses a repeated claim, loses nothing but time")
def works_without_claim_ids(lab: Lab) -> None:
    lab.api.claim_ids = False
    lab.api.fail("claim", DROP)
    run = lab.add()
    lab.start()
    lab.until(lambda: lab.api.count("claim", run), "It never claimed.")
    other: list[FakeRun] = []

    def is_settled() -> bool:
        # The answer to the first claim was lost, and this API refuses the repeated claim. The worker must not execute
        # the run then, so the run stays claimed. This line ends it, as the end of its lease would.
        if lab.api.count("claim", run) >= 2 and not other and run.status == "claimed":
            with lab.api.lock:
                run.status = "failed"
            other.append(lab.add())
        return bool(other) and other[0].status == "succeeded"

    lab.until(is_settled, "It did not come back to work after a claim that was lost.")
    expect(lab.launched(run) == 0, "It launched a run whose claim was refused.")
    lab.must_live()


@check("a newer API's unknown fields and statuses change nothing")
def ignores_what_is_newer(lab: Lab) -> None:
    lab.api.newer = NEWER
    lab.api.lease_seconds = 3
    run = lab.add("sleep 2")
    lab.start()
    expect_status(lab.until_ended(run), "succeeded")
    expect(lab.launched(run) == 1, f"It launched the program {lab.launched(run)} times.")


@check("fields of a run that it does not know, whatever they hold, change nothing")
def ignores_what_is_newer_in_a_run(lab: Lab) -> None:
    run = lab.add(newer={**NEWER, "enabled": False, "priority": None, "poolId": 7, "": [[]]})
    lab.start()
    expect_status(lab.until_ended(run), "succeeded")
    expect(lab.launched(run) == 1, f"It launched the program {lab.launched(run)} times.")


@check("a run that it can't read is left out, and the others are done")
def skips_what_it_cannot_read(lab: Lab) -> None:
    good = lab.add()
    hostile: list[Any] = [
        None,
        {},
        {**good.handed_out(), "id": "../../etc/passwd"},
        {**good.handed_out(), "id": FakeRun().id, "prompt": None},
    ]
    lab.api.fail("poll", 200, body={"runs": [*hostile, good.handed_out()]})
    lab.start()
    expect_status(lab.until_ended(good), "succeeded")
