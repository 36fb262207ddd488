"""Checks what a worker does as one of several of a pool, and when the usage limit of its account is reached."""

from __future__ import annotations

import time
from uuid import uuid4

from pipedai_worker.conformance import usage_limit_wire
from pipedai_worker.conformance.checks import check
from pipedai_worker.conformance.lab import Lab, expect, expect_few_polls, expect_status

RESETS_IN_SECONDS = 3600
# The time at which the limit is to end may be told this much later or earlier, because a worker may round it.
TOLERANCE_SECONDS = 60.0


@check(
    "a usage limit of its account is reported as infra, with usageLimit, so that others take over"
)
def tells_a_usage_limit(lab: Lab) -> None:
    lab.start()
    ends_at = time.time() + RESETS_IN_SECONDS
    outcome = lab.until_ended(lab.add(f"rate-limit {RESETS_IN_SECONDS}"))
    expect_status(outcome, "failed")
    expect(outcome.get("faultClass") == "infra", "It did not report the limit as infra.")
    limit = outcome.get("usageLimit")
    expect(limit is not None, "It reported no usageLimit.")
    told = lab.api.ignored
    expect(not told, f"The API would ignore the usage limit: {''.join(told[:1])}")
    resets_at = usage_limit_wire.resets_at(limit or {})
    late = 0.0 if resets_at is None else resets_at.timestamp() - ends_at
    most = TOLERANCE_SECONDS + time.time() + RESETS_IN_SECONDS - ends_at
    expect(
        -TOLERANCE_SECONDS <= late <= most,
        f"It reported an end of the limit that is {late:.0f} s away from what claude said.",
    )
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check(
    "while the API gives it no runs, such as during a usage limit, it ends what it holds and asks on"
)
def waits_while_it_is_limited(lab: Lab) -> None:
    lab.api.lease_seconds = 3
    # Each poll is answered at once, so that the worker learns of the limit.
    lab.api.long_polls = False
    held = lab.add("sleep 4")
    lab.start()
    lab.until_running(held)
    with lab.api.lock:
        lab.api.limited_seconds = RESETS_IN_SECONDS
        lab.api.lock.notify_all()
    waiting, asked = lab.add(), lab.api.asked()
    expect_status(lab.until_ended(held), "succeeded")
    lab.until(lambda: lab.api.asked() > asked, "It did not ask again while it was limited.")
    expect_few_polls(lab, "polled while it was limited")
    expect(waiting.status == "queued", "It took a run while it was limited.")
    with lab.api.lock:
        lab.api.limited_seconds = None
        lab.api.lock.notify_all()
    expect_status(lab.until_ended(waiting), "succeeded")


@check(
    "a run that is to resume a session which it does not have is handed back, and not begun anew"
)
def does_not_repeat_what_it_cannot_resume(lab: Lab) -> None:
    session_id = str(uuid4())
    run = lab.add(retry_mode="resume", resume_session_id=session_id)
    lab.start()
    outcome = lab.until_ended(run)
    expect(lab.launched(run) == 0, "It began the run anew, which may repeat what was done before.")
    expect_status(outcome, "failed")
    expect(outcome.get("faultClass") == "infra", "The run was not handed back as infra.")
    expect(not outcome.get("sessionId"), "It told a session, although it could not resume it.")
    expect_status(lab.until_ended(lab.add()), "succeeded")
