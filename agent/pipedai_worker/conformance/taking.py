"""Checks how a worker takes its runs: by `claim-next`, or by poll, claim and start. It need know only one way."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipedai_worker.conformance.fake_api import DROP, FakeRun
from pipedai_worker.conformance.lab import (
    MOST_ATTEMPTS,
    QUIET_SECONDS,
    Lab,
    Skipped,
    check,
    expect,
    expect_few_polls,
    expect_status,
    expect_well_formed,
)


def _skip_unless_used(lab: Lab, kind: str = "claim-next") -> None:
    """Raise Skipped if the worker has asked for a run, and only in the other way than by this call."""
    lab.until(lab.api.asked, "It never asked for a run.")
    if not lab.api.count(kind):
        used = "claim-next" if kind == "poll" else "poll and claim"
        raise Skipped(f"It takes its runs by {used}.")


@check("a run taken by claim-next is executed once, and the next one has another claimId")
def takes_the_next_run(lab: Lab) -> None:
    runs = [lab.add(), lab.add()]
    lab.start()
    for run in runs:
        lab.must_end_once(run)
        expect(run.history == ["claimed", "running", "succeeded"], f"The run went {run.history}.")
    _skip_unless_used(lab)
    expect(runs[0].claim_id != runs[1].claim_id, "It took two runs with one claimId.")
    expect_well_formed(lab)


@check(
    "a claim-next whose answer was lost is repeated with the same claimId, and the run done once"
)
def repeats_a_lost_claim_next(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP)
    run = lab.add()
    lab.start()
    expect_status(lab.until_ended(run), "succeeded")
    _skip_unless_used(lab)
    with lab.api.lock:
        asked = [body.get("claimId") for kind, _, body in lab.api.calls if kind == "claim-next"]
    expect(asked[:1] == asked[1:2], "It repeated its claim-next with another claimId.")
    lab.expect_launched_once(run)


@check("after a kill -9 while the answer to claim-next was lost, its run is settled at the restart")
def settles_a_claim_next_after_a_kill(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP, times=10_000)
    run = lab.add()
    lab.start()
    lab.until(lambda: run.status != "queued", "It never took the run.")
    _skip_unless_used(lab)
    lab.kill()
    lab.api.heal()
    lab.start()
    lab.until_ended(run)
    expect(lab.launched(run) <= 1, f"It launched the program {lab.launched(run)} times.")
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check("a claim whose answer was lost is repeated with the same claimId, and the run done once")
def repeats_a_lost_claim(lab: Lab) -> None:
    run = _lose(lab, "claim")
    claim_ids = {body.get("claimId") for body in lab.api.bodies("claim", run)}
    expect(len(claim_ids) == 1, "It repeated its claim with another claimId.")


@check("a start whose answer was lost is repeated, and the run done once")
def repeats_a_lost_start(lab: Lab) -> None:
    _lose(lab, "start")


def _lose(lab: Lab, kind: str) -> FakeRun:
    lab.api.fail(kind, DROP)
    run = lab.add()
    lab.start()
    _skip_unless_used(lab, "poll")
    lab.must_end_once(run)
    return run


@check("a run whose claim is refused with 409 is left alone, without a hot loop")
def leaves_a_refused_claim_alone(lab: Lab) -> None:
    lab.api.fail(
        "claim", 409, times=10_000, body={"error": "The run is taken.", "status": "claimed"}
    )
    run = lab.add()
    lab.start()
    _skip_unless_used(lab, "poll")
    lab.until(lambda: lab.api.count("claim"), "It never claimed.")
    expect_few_polls(lab, "polled")
    claims = lab.api.count("claim")
    expect(claims <= MOST_ATTEMPTS, f"It claimed {claims} times in {QUIET_SECONDS:g} s.")
    expect(lab.launched(run) == 0, "It launched a run that it could not claim.")
    for kind in ("start", "complete"):
        expect(lab.api.count(kind) == 0, f"It sent {kind} for a run that it could not claim.")


@check("a run whose start is refused with 409 is not executed")
def leaves_a_refused_start_alone(lab: Lab) -> None:
    run = lab.add()
    lab.api.fail("start", 409, body={"error": "The run is failed.", "status": "failed"})
    lab.start()
    _skip_unless_used(lab, "poll")
    lab.until(lambda: lab.api.count("start"), "It never started the run.")
    with lab.api.lock:
        run.status = "failed"
    other = lab.add()
    lab.until_ended(other)
    expect(lab.launched(run) == 0, "It launched a run whose start was refused.")


@check(
    "a run that another worker of the pool has claimed (409, 404) is left alone, and the next done"
)
def leaves_a_lost_race_alone(lab: Lab) -> None:
    lab.start()
    _skip_unless_used(lab, "poll")
    # The API answers 409 to the workers of the run's pool, and 404 to one that has left the pool since its poll.
    for status in (409, 404):
        run = lab.add(lost_to_another=status)
        lab.until(partial(lab.api.count, "claim", run), "It did not claim a run of a pool.")
        expect_status(lab.until_ended(lab.add()), "succeeded")
        expect(lab.launched(run) == 0, "It launched a run that another worker had claimed.")
        for kind in ("start", "heartbeat", "complete"):
            sent = lab.api.count(kind, run)
            expect(sent == 0, f"It sent {kind} for a run that another worker had claimed.")


@check(
    "a run whose claim is refused because the worker is limited meanwhile is claimed again later"
)
def comes_back_after_a_refusal(lab: Lab) -> None:
    lab.api.fail(
        "claim",
        409,
        times=2,
        body={"error": "Limited.", "code": "worker_limited", "status": "queued"},
    )
    run = lab.add()
    lab.start()
    _skip_unless_used(lab, "poll")
    lab.must_end_once(run)


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
    _skip_unless_used(lab, "poll")
    expect_status(lab.until_ended(good), "succeeded")
