"""Checks a worker that takes its runs by `claim-next`. A worker need not use it; then these checks are skipped."""

from __future__ import annotations

from pipedai_worker.conformance.checks import check
from pipedai_worker.conformance.fake_api import DROP
from pipedai_worker.conformance.lab import (
    Lab,
    Skipped,
    expect,
    expect_status,
    expect_well_formed,
)


def _start(lab: Lab) -> None:
    lab.api.short_protocol = True
    lab.start()


def _skip_unless_used(lab: Lab) -> None:
    if not lab.api.count("claim-next"):
        raise Skipped("It takes its runs by poll and claim.")


def _claim_ids(lab: Lab) -> list[str]:
    """Return the claimIds that the worker has sent with `claim-next`, in order."""
    with lab.api.lock:
        return [body.get("claimId", "") for kind, _, body in lab.api.calls if kind == "claim-next"]


@check("a run taken by claim-next is executed once, and the next one has another claimId")
def takes_the_next_run(lab: Lab) -> None:
    runs = [lab.add(), lab.add()]
    _start(lab)
    for run in runs:
        expect_status(lab.until_ended(run), "succeeded")
        went = [*run.history]
        expect(went == ["claimed", "running", "succeeded"], f"The run went {went}.")
        expect(lab.launched(run) == 1, f"It launched the program {lab.launched(run)} times.")
    _skip_unless_used(lab)
    expect(runs[0].claim_id != runs[1].claim_id, "It took two runs with one claimId.")
    expect_well_formed(lab)


@check(
    "a claim-next whose answer was lost is repeated with the same claimId, and the run done once"
)
def repeats_a_lost_claim_next(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP)
    run = lab.add()
    _start(lab)
    expect_status(lab.until_ended(run), "succeeded")
    _skip_unless_used(lab)
    first, second, *_ = [*_claim_ids(lab), "", ""]
    expect(first == second, "It repeated its claim-next with another claimId.")
    expect(lab.launched(run) == 1, f"It launched the program {lab.launched(run)} times.")


@check("a run that claim-next has only claimed, as an API that ignores start does, is started")
def starts_what_was_only_claimed(lab: Lab) -> None:
    lab.api.starts = False
    run = lab.add()
    _start(lab)
    expect_status(lab.until_ended(run), "succeeded")
    _skip_unless_used(lab)
    expect(lab.api.count("start", run) > 0, "It never told that it has started the run.")


@check("after a kill -9 while the answer to claim-next was lost, its run is settled at the restart")
def settles_a_claim_next_after_a_kill(lab: Lab) -> None:
    lab.api.fail("claim-next", DROP, times=10_000)
    run = lab.add()
    _start(lab)
    lab.until(lambda: run.status != "queued", "It never took the run.")
    _skip_unless_used(lab)
    lab.kill()
    with lab.api.lock:
        lab.api.faults.clear()
    lab.start()
    lab.until_ended(run)
    expect(lab.launched(run) <= 1, f"It launched the program {lab.launched(run)} times.")
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check("an API that knows claim-next no more, as after a downgrade, is worked with all the same")
def goes_on_without_claim_next(lab: Lab) -> None:
    _start(lab)
    expect_status(lab.until_ended(lab.add()), "succeeded")
    _skip_unless_used(lab)
    lab.api.short_protocol = False
    lab.service.stop()
    lab.service.start()
    expect_status(lab.until_ended(lab.add()), "succeeded")
    lab.must_live()
