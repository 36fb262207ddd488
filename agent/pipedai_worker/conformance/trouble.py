"""Checks what a worker does when answers are lost, late or refused, or when the API can't be reached."""

import json
from functools import partial

from pipedai_worker.conformance.fake_api import DROP
from pipedai_worker.conformance.lab import (
    QUIET_SECONDS,
    Lab,
    Skipped,
    check,
    expect,
    expect_few_polls,
    expect_handed_back,
    expect_status,
)


@check("a report whose answer was lost is repeated with the same status")
def repeats_a_lost_report(lab: Lab) -> None:
    lab.api.fail("complete", DROP)
    run = lab.start_with()
    lab.must_end_once(run)
    lab.until(lambda: lab.api.count("complete", run) >= 2, "It did not repeat its report.")
    statuses = {body.get("status") for body in lab.api.bodies("complete", run)}
    expect(len(statuses) == 1, f"It reported different statuses for one run: {statuses}.")


@check("5xx, also as a proxy's page of HTML, is tried again for every request")
def tries_again_after_5xx(lab: Lab) -> None:
    for kind in ("poll", "claim", "claim-next", "start", "heartbeat", "complete"):
        lab.api.fail(kind, 502, body="<html>Bad gateway</html>")
        lab.api.fail(kind, 503)
    lab.must_end_once(lab.start_with())


@check("while polls fail it backs off instead of asking in a hot loop")
def backs_off(lab: Lab) -> None:
    for kind in ("poll", "claim-next"):
        lab.api.fail(kind, 503, times=10_000)
    lab.start()
    lab.until(lab.api.asked, "It never asked for a run.")
    expect_few_polls(lab, "polled an API that answers 503")


@check("Retry-After is honoured")
def honours_retry_after(lab: Lab) -> None:
    lab.api.fail("complete", 429, headers={"Retry-After": "4"})
    run = lab.start_with()
    lab.until_ended(run)
    first, second, *_ = lab.api.times("complete", run)
    # The worker must wait 4 s. The limit is a little less, because some clocks are not exact.
    expect(second - first > 3.9, f"It came back after {second - first:.1f} s and not 4.")


@check("a report refused for good (404, 409) is not sent for ever, and the next run is done")
def accepts_a_refused_report(lab: Lab) -> None:
    lab.start()
    for status in (404, 409):
        lab.api.fail("complete", status)
        run = lab.add()
        lab.until(partial(lab.api.count, "complete", run), "It did not report the run.")
        with lab.api.lock:
            run.status = "failed"
        lab.until_ended(lab.add())
        reports = lab.api.count("complete", run)
        expect(reports <= 2, f"It sent a report {reports} times after {status}.")


@check("a slow network, where every answer takes seconds and comes in pieces, loses nothing")
def stands_a_slow_network(lab: Lab) -> None:
    lab.api.latency = 1.0
    lab.must_end_once(lab.start_with(), times=2)


@check("an API that restarts while a run is executed finds the run's outcome reported")
def stands_a_restart_of_the_api(lab: Lab) -> None:
    run = lab.begin("sleep 2")
    lab.service.stop()
    lab.pause(4)
    lab.service.start()
    lab.must_end_once(run)


@check("SIGTERM, the API away, the program deaf: it leaves within 30 s, and reports at its restart")
def leaves_while_the_api_is_away(lab: Lab) -> None:
    run = lab.begin("ignore-term", "sleep 60")
    lab.service.stop()
    lab.terminate()
    lab.until(lambda: not lab.running(run), "The program goes on without its worker.")
    lab.service.start()
    lab.start()
    expect_handed_back(lab.until_ended(run))
    lab.expect_launched_once(run)


@check("a dead token (401) ends it, or at least makes it rare")
def gives_up_with_a_dead_token(lab: Lab) -> None:
    lab.start()
    lab.until(lab.api.asked, "It never asked for a run.")
    with lab.api.lock:
        lab.api.worker_token = "wkt_" + "C" * 49
        lab.api.lock.notify_all()
    lab.service.stop()
    lab.service.start()
    before = lab.api.asked()
    lab.until(lambda: lab.ended() or lab.api.asked() > before, "It neither ended nor polled again.")
    before = lab.api.asked()
    lab.pause(QUIET_SECONDS)
    polls = lab.api.asked() - before
    expect(polls <= 3, f"It polled {polls} times with a dead token in {QUIET_SECONDS:g} s.")


@check("an outcome that could not be reported is reported after a kill -9 and a restart, unchanged")
def keeps_an_outcome_over_a_kill(lab: Lab) -> None:
    run = lab.add("success It is done.")
    lab.api.fail("complete", 503, times=10_000)
    lab.start()
    lab.until(lambda: lab.api.count("complete", run), "It did not report the run.")
    lab.kill()
    lab.api.heal()
    lab.start()
    outcome = lab.until_ended(run)
    expect_status(outcome, "succeeded")
    lab.expect_launched_once(run)
    reported = lab.api.bodies("complete", run)
    expect(outcome == reported[0], "It reported another outcome after its restart.")


@check("after a kill -9 and a restart no old program goes on, and its run is handed back")
def settles_a_run_after_a_kill(lab: Lab) -> None:
    run = lab.begin("sleep 60")
    lab.kill()
    lab.start()
    expect_handed_back(lab.until_ended(run))
    lab.expect_launched_once(run)
    lab.until(lambda: not lab.running(run), "A program of the killed worker goes on.")


OLD_TOKEN, NEW_TOKEN = "old-token-0123456789abcdef", "new-token-0123456789abcdef"
# The API takes a request for credentials once in 5 s, by its own clock.
SHORTEST_GAP_SECONDS = 4.5


@check("headers that are replaced during a run are asked for, and a refused call is sent once more")
def credentials(lab: Lab) -> None:
    replaced = lab.directory / "replaced"
    run = lab.add(
        *("call look", f"wait-for {replaced}", "call look", f"success {OLD_TOKEN} {NEW_TOKEN}"),
        mcp_headers={"Authorization": f"Bearer {OLD_TOKEN}"},
        headers_expire_in=3600,
    )
    run.mcp_url = f"{run.mcp_url}/{run.id}"
    lab.start()
    lab.until(lambda: run.calls_taken, "No tool call came with the run's headers.")
    with lab.api.lock:
        run.mcp_headers = {"Authorization": f"Bearer {NEW_TOKEN}"}
    replaced.touch()
    outcome = lab.until_ended(run)
    expect_status(outcome, "succeeded")
    asked = lab.api.times("credentials", run)
    if not asked:
        raise Skipped("It asks for no new credentials during a run.")
    expect(run.calls_taken == 2, f"{run.calls_taken} calls passed, of two.")
    gap = min((after - before for before, after in zip(asked, asked[1:])), default=60.0)
    expect(gap >= SHORTEST_GAP_SECONDS, f"It asked for credentials again after {gap:.1f} s.")
    for token in (OLD_TOKEN, NEW_TOKEN):
        expect(token not in json.dumps(outcome), "It reported a secret header's value.")
        expect(token not in lab.log(), "It logged a secret header's value.")
        expect(not lab.files_with(token), "It left a secret header's value in a file.")
