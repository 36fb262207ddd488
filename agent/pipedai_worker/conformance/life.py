"""Checks what a worker does with a run while nothing fails: claiming, starting, heartbeats, stopping, reporting."""

import json
import time
from datetime import timedelta
from functools import partial
from uuid import uuid4

from pipedai_worker.conformance.fake_api import IN_HAND
from pipedai_worker.conformance.lab import (
    Lab,
    check,
    expect,
    expect_few_polls,
    expect_handed_back,
    expect_status,
    expect_well_formed,
)
from pipedai_worker.values import parse_time

SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - no secret
# Fields and a status that only an API newer than the worker might answer.
NEWER = {"protocol": 9, "hints": {"x": [1, {"y": None}]}, "status": "paused"}
# The lease of a run in these checks: so long because a busy machine may delay a correct heartbeat by seconds.
LEASE_SECONDS = 12.0
LONGER_THAN_THE_LEASE = 14.0


@check("a run is claimed, started, executed once, and reported as succeeded")
def does_a_run(lab: Lab) -> None:
    run = lab.start_with()
    expect_status(lab.until_ended(run), "succeeded")
    expect(run.history == ["claimed", "running", "succeeded"], f"The run went {run.history}.")
    lab.expect_launched_once(run)
    expect_status(lab.until_ended(lab.add()), "succeeded")
    expect_well_formed(lab)


@check("a program that fails is reported as failed, with whose fault it was")
def reports_a_failure(lab: Lab) -> None:
    run = lab.start_with("crash 3")
    outcome = lab.until_ended(run)
    expect_status(outcome, "failed")
    fault = outcome.get("faultClass")
    expect(fault in {"infra", "client"}, f"It reported the fault as {fault!r}.")
    expect_well_formed(lab)


@check("a waiting poll is one at a time, and brings a run at once")
def waits_with_one_poll(lab: Lab) -> None:
    lab.start()
    lab.until(lambda: lab.api.polls_waiting, "It never asked the API to hold a poll (?wait=).")
    lab.until_ended(lab.add())
    most = lab.api.most_polls_waiting
    expect(most == 1, f"It had {most} polls waiting at a time.")


@check("the lease never runs out while a run is executed")
def keeps_the_lease(lab: Lab) -> None:
    _keep_the_lease(lab)


@check("the lease is kept by the API's clock, three hours ahead of this machine's")
def keeps_the_lease_by_the_apis_clock(lab: Lab) -> None:
    lab.api.clock_ahead = timedelta(hours=3)
    _keep_the_lease(lab)
    beats = lab.api.count("heartbeat")
    expect(beats <= 30, f"It sent {beats} heartbeats in {LONGER_THAN_THE_LEASE:g} s.")


def _keep_the_lease(lab: Lab) -> None:
    lab.api.lease_seconds = LEASE_SECONDS
    run = lab.start_with(f"sleep {LONGER_THAN_THE_LEASE:g}")
    lab.until_ended(run, times=2)
    silence = run.longest_silence
    expect(
        silence < LEASE_SECONDS,
        f"It was silent for {silence:.1f} s of a lease of {LEASE_SECONDS:g} s.",
    )


@check("tool calls, where a worker tells of them, are told well, and never fewer than before")
def tells_tool_calls_well(lab: Lab) -> None:
    lab.api.lease_seconds = 3
    runs = [lab.add("sleep 4"), lab.add("crash 3")]
    lab.start()
    for run in runs:
        lab.until_ended(run)
    ignored = lab.api.ignored
    expect(not ignored, f"The API would ignore its tool calls: {''.join(ignored[:1])}")


@check("a cancel that a heartbeat tells of ends the program, and is reported as canceled")
def honours_a_cancel(lab: Lab) -> None:
    lab.api.lease_seconds = 3
    run = lab.begin("sleep 60")
    lab.api.cancel(run)
    expect_status(lab.until_ended(run), "canceled")
    lab.until(lambda: not lab.running(run), "The program of a canceled run goes on.")


@check("a program over its time limit is ended, and reported as timed_out")
def honours_the_time_limit(lab: Lab) -> None:
    run = lab.start_with("sleep 60", timeout_seconds=1)
    expect_status(lab.until_ended(run), "timed_out")
    lab.until(lambda: not lab.running(run), "The program goes on after its time limit.")


@check("a heartbeat refused with 409 ends the program: the run is no longer this worker's")
def stops_a_run_that_it_lost(lab: Lab) -> None:
    lab.api.lease_seconds = 3
    run = lab.begin("sleep 60")
    with lab.api.lock:
        run.status = "failed"
    lab.until(lambda: not lab.running(run), "The program of a lost run goes on.")
    lab.must_live()


@check("MCP header values come back in no report and no log line, and no file keeps them")
def keeps_secrets(lab: Lab) -> None:
    lab.start()
    # The first program crashes. The second one succeeds with a text that has the secret, as from its MCP server.
    headers = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET.upper()}
    for ending in ("crash 3", f"success {SECRET} {SECRET.upper()}"):
        lab.api.fail("complete", 503, times=10_000)
        run = lab.add("show-mcp", ending, mcp_headers=headers)
        lab.until(partial(lab.api.count, "complete", run), "It did not report the run.")
        # No file may hold the secret at this point: neither that of the outcome that waits to be sent, nor any other.
        lab.until(
            lambda: not lab.files_with(SECRET) and not lab.files_with(SECRET.upper()),
            "It left a secret header's value in a file while a report waited to be repeated.",
        )
        lab.api.heal()
        report = json.dumps(lab.until_ended(run))
        for secret in (SECRET, SECRET.upper()):
            expect(secret not in report, "It reported a secret header's value.")
            expect(secret not in lab.log(), "It logged a secret header's value.")
    expect(lab.api.worker_token not in lab.log(), "It logged its own token.")


@check("what claude would expand from this machine's environment reaches no MCP configuration")
def refuses_expansion(lab: Lab) -> None:
    runs = [
        lab.add("show-mcp", mcp_url=f"{lab.api.mcp_url}/${{HOME}}"),
        lab.add("show-mcp", mcp_headers={"X-Key": "${HOME}"}),
    ]
    lab.start()
    for run in runs:
        outcome = lab.until_ended(run)
        if outcome.get("status") == "failed":
            expect(outcome.get("faultClass") == "client", "It did not call it the client's fault.")
        # A worker may refuse such a run, or execute it and send the URL and the headers itself. In both cases claude's
        # configuration contains no `${`, which claude would replace by a value of this machine's environment.
        expect("${" not in str(outcome.get("shortMessage")), "It configured claude with a `${`.")


@check("a run without an MCP server is executed, with no server in claude's configuration")
def does_without_a_server(lab: Lab) -> None:
    run = lab.add("show-mcp", mcp_url=None)
    lab.start()
    outcome = lab.until_ended(run)
    expect_status(outcome, "succeeded")
    configured = str(outcome.get("shortMessage"))
    expect("http" not in configured, f"It configured a server: {configured}")


@check("SIGTERM: it leaves within 30 s with code 0, and what it held is reported")
def leaves_on_sigterm(lab: Lab) -> None:
    run = lab.begin("sleep 60")
    lab.terminate()
    expect(run.status not in IN_HAND, f"It left a run {run.status}.")
    expect_handed_back(run.outcome or {})
    lab.until(lambda: not lab.running(run), "The program goes on without its worker.")


@check("SIGTERM while nothing is in hand: it leaves with code 0")
def leaves_at_once_when_idle(lab: Lab) -> None:
    lab.start()
    lab.until(lab.api.asked, "It never asked for a run.")
    lab.terminate()


@check("a newer API's unknown fields and statuses change nothing")
def ignores_what_is_newer(lab: Lab) -> None:
    lab.api.newer = NEWER
    lab.api.lease_seconds = 3
    lab.must_end_once(lab.start_with("sleep 2"))


@check("fields of a run that it does not know, whatever they hold, change nothing")
def ignores_what_is_newer_in_a_run(lab: Lab) -> None:
    newer = {**NEWER, "enabled": False, "priority": None, "poolId": 7, "": [[]]}
    lab.must_end_once(lab.start_with(newer=newer))


RESETS_IN_SECONDS = 3600
# The reported end of the limit may be this much later or earlier than the real one, because a worker may round it.
TOLERANCE_SECONDS = 60.0


@check("a usage limit of its account is reported as infra with usageLimit: others take over")
def tells_a_usage_limit(lab: Lab) -> None:
    lab.start()
    ends_at = time.time() + RESETS_IN_SECONDS
    outcome = lab.until_ended(lab.add(f"rate-limit {RESETS_IN_SECONDS}"))
    expect_status(outcome, "failed")
    expect(outcome.get("faultClass") == "infra", "It did not report the limit as infra.")
    limit = outcome.get("usageLimit")
    expect(limit is not None, "It reported no usageLimit.")
    ignored = lab.api.ignored
    expect(not ignored, f"The API would ignore the usage limit: {''.join(ignored[:1])}")
    late = (parse_time((limit or {}).get("resetsAt")) or ends_at) - ends_at
    most = TOLERANCE_SECONDS + time.time() + RESETS_IN_SECONDS - ends_at
    expect(
        -TOLERANCE_SECONDS <= late <= most,
        f"It reported an end of the limit that is {late:.0f} s away from what claude said.",
    )
    expect_status(lab.until_ended(lab.add()), "succeeded")


@check("while the API gives it no runs, as during a usage limit, it ends what it holds and asks on")
def waits_while_it_is_limited(lab: Lab) -> None:
    lab.api.lease_seconds = 3
    # Each poll is answered at once, so that the worker learns of the limit.
    lab.api.long_polls = False
    held = lab.begin("sleep 4")
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


@check("a run that is to resume a session which it lacks is handed back, and not begun anew")
def does_not_repeat_what_it_cannot_resume(lab: Lab) -> None:
    session_id = str(uuid4())
    run = lab.start_with(retry_mode="resume", resume_session_id=session_id)
    outcome = lab.until_ended(run)
    expect(lab.launched(run) == 0, "It began the run anew, which may repeat what was done before.")
    expect_handed_back(outcome)
    expect(not outcome.get("sessionId"), "It told a session, although it could not resume it.")
    expect_status(lab.until_ended(lab.add()), "succeeded")
