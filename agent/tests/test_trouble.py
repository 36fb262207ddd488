"""A real worker process copes with an API that is away, wrong, busy or hostile, and with a dead token."""

from __future__ import annotations

import signal
from contextlib import closing
from datetime import timedelta

import pytest

from pipedai_worker.conformance.fake_api import DROP, FakeApi, FakeRun
from pipedai_worker.conformance.serving import Service
from pipedai_worker.running.assigned import AssignedRun

from .conftest import NO_CALLS, Workers, program_that_waits_for, until


def test_a_worker_waits_for_an_api_that_is_not_there_yet(api: FakeApi, workers: Workers) -> None:
    with closing(Service(api)) as service:
        worker = workers.start("--api-url", service.url)
        worker.until_logged("can't be reached")
        run = api.add()
        service.start()
        api.until_ended(run)
        assert worker.log.count("can't be reached") == 1
        assert "the API answers again" in worker.log
        assert worker.stop() == 0


@pytest.mark.parametrize("body", ["<html>Welcome</html>", ["a", "list"], {"run": "none"}])
def test_a_url_that_is_no_pipedai_api_is_said_at_once(
    api: FakeApi, workers: Workers, body: object
) -> None:
    api.fail("claim-next", 200, times=100, body=body)
    worker = workers.start()
    assert worker.wait() == 4
    assert "Check the API's URL." in worker.log


def test_a_redirect_is_not_followed_but_told(api: FakeApi, workers: Workers) -> None:
    api.fail("claim-next", 301, body="moved", headers={"Location": "https://elsewhere.example/"})
    worker = workers.start()
    assert worker.wait() == 4
    assert "301 to https://elsewhere.example/" in worker.log


def test_a_proxys_page_in_place_of_a_known_api_passes(api: FakeApi, workers: Workers) -> None:
    worker = workers.start()
    api.until(lambda: api.count("claim-next") >= 2)
    api.fail("claim-next", 404, times=2, body="<html>maintenance</html>")
    api.until_ended(api.add())
    api.until(lambda: api.count("claim-next") >= 4)
    api.until_ended(api.add())
    assert worker.process.poll() is None


@pytest.mark.parametrize("status", [401, 404])
def test_a_dead_token_ends_the_worker_with_a_sentence(
    api: FakeApi, workers: Workers, status: int
) -> None:
    api.fail("claim-next", status, body={"error": "No longer valid."})
    worker = workers.start()
    assert worker.wait() == 3
    assert "Register again with a new wrk_ token." in worker.log
    assert api.worker_token not in worker.log


def test_another_services_404_is_a_wrong_url_and_costs_no_outcome(
    api: FakeApi, workers: Workers
) -> None:
    api.fail("complete", 503, times=1000)
    run = api.add("standin: success kept")
    worker = workers.start()
    until(lambda: workers.files("outcomes"))
    worker.stop(signal.SIGKILL)
    api.faults.clear()
    for kind in ("claim-next", "complete", "health"):
        api.fail(kind, 404, times=1000, body={"error": "No such page."})
    worker = workers.start()
    assert worker.wait() == 4
    assert "There is no PipedAI API at" in worker.log
    assert workers.files("outcomes")
    api.faults.clear()
    workers.start("--once")
    assert api.until_ended(run)["shortMessage"] == "kept"


def test_an_older_api_without_health_is_believed_once_it_has_answered(
    api: FakeApi, workers: Workers
) -> None:
    api.lease_seconds = 1
    api.fail("health", 404, times=1000, body={"error": "Not found"})
    run = api.add("standin: hang")
    worker = workers.start()
    api.until(lambda: api.count("heartbeat", run))
    api.fail("heartbeat", 404, times=1000, body={"error": "Not found"})
    worker.until_logged(f"run {run.id} stopped: no longer this worker's run")
    assert api.count("health") == 0


def test_a_poll_refused_for_another_reason_ends_the_worker_too(
    api: FakeApi, workers: Workers
) -> None:
    api.fail("claim-next", 403, body={"error": "Not from here."})
    worker = workers.start()
    assert worker.wait() == 1
    assert worker.log.endswith("error   Not from here.\n")


def test_a_token_that_dies_during_a_run_ends_the_run_and_keeps_its_outcome(
    api: FakeApi, workers: Workers
) -> None:
    api.lease_seconds = 1
    api.fail("heartbeat", 401, times=100)
    api.fail("complete", 401, times=100)
    run = api.add("standin: hang")
    worker = workers.start()
    assert worker.wait() == 3
    api.faults.clear()
    # After it has registered again, the same worker reports the runs that it kept.
    workers.start("--once")
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")


@pytest.mark.parametrize("status", [500, 502, 429])
def test_what_may_pass_is_tried_again(api: FakeApi, workers: Workers, status: int) -> None:
    for kind in ("claim-next", "complete"):
        api.fail(kind, status, body="<html>busy</html>" if status == 502 else None)
    run = api.add()
    workers.start()
    assert api.until_ended(run)["status"] == "succeeded"
    assert api.count("complete") == 2


def test_retry_after_is_honoured(api: FakeApi, workers: Workers) -> None:
    api.fail("complete", 429, headers={"Retry-After": "2"})
    run = api.add()
    workers.start()
    api.until_ended(run)
    first, second = api.times("complete", run)
    assert second - first >= 1.9


def test_a_final_refusal_of_an_outcome_is_final(api: FakeApi, workers: Workers) -> None:
    worker = workers.start()
    for status, times in ((400, 2), (404, 1), (409, 1)):
        api.fail("complete", status, times=times)
        run = api.add()
        worker.until_logged(f"run {run.id}: succeeded not accepted")
        until(lambda: workers.files("outcomes") == workers.files("held") == [])
        assert api.count("complete", run) == times
        with api.lock:
            run.status = "failed"


def test_an_outcome_that_the_api_cannot_take_whole_is_reported_bare(
    api: FakeApi, workers: Workers
) -> None:
    workers.start()
    for status in (400, 413):
        api.fail("complete", status)
        assert api.until_ended(api.add()) == {"status": "succeeded", "faultClass": "none"}


def test_heartbeats_go_on_while_an_outcome_cannot_be_reported(
    api: FakeApi, workers: Workers
) -> None:
    api.lease_seconds = 0.9
    api.fail("complete", 503, times=1000)
    run = api.add()
    workers.start()
    api.until(lambda: api.count("complete") >= 1)
    before = api.count("heartbeat")
    api.until(lambda: api.count("heartbeat") > before)
    with api.lock:
        api.faults.clear()
    assert api.until_ended(run)["status"] == "succeeded"


def test_heartbeats_survive_lost_answers(api: FakeApi, workers: Workers) -> None:
    api.lease_seconds = 0.9
    api.fail("heartbeat", DROP, times=2)
    run = api.add()
    go = workers.directory / "go"
    workers.start("--command", program_that_waits_for(go))
    api.until(lambda: api.count("heartbeat") >= 3)
    go.touch()
    assert api.until_ended(run)["status"] == "succeeded"


def test_a_run_that_cannot_be_read_is_none() -> None:
    good = FakeRun()
    assert AssignedRun.parse(good.handed_out()) is not None
    hostile = [
        *(None, 5, {}, {**good.handed_out(), "id": "../../etc/passwd"}),
        *({**good.handed_out(), "mcpHeaders": {"a": 5}}, {**good.handed_out(), "prompt": None}),
        *({**good.handed_out(), "model": 5}, {**good.handed_out(), "mcpUrl": "\ud800"}),
    ]
    assert [AssignedRun.parse(item) for item in hostile] == [None] * 8


def test_a_state_directory_that_cannot_be_used_is_said_at_once(workers: Workers) -> None:
    workers.state.parent.mkdir(parents=True)
    workers.state.write_text("no directory")
    worker = workers.start("--once")
    # The exit code is not that of a bad configuration, because a full disk may have room again later.
    assert worker.wait() == 1
    assert "can't be used" in worker.log


def test_a_program_that_is_not_there_is_handed_back(api: FakeApi, workers: Workers) -> None:
    run = api.add()
    workers.start("--command", "/no/such/program")
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
    assert "could not be launched" in outcome["errorMessage"]
    assert "exitCode" not in outcome


def test_a_clock_that_is_right_is_not_mentioned(api: FakeApi, workers: Workers) -> None:
    api.clock_ahead = timedelta(seconds=5)
    worker = workers.start("--once")
    assert worker.wait() == 0
    assert "clock" not in worker.log


def test_a_failing_command_tells_its_code_and_its_last_words(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add()
    workers.start("--command", "sh -c 'echo out; echo why >&2; exit 3'")
    assert api.until_ended(run) == {
        "status": "failed",
        "faultClass": "client",
        "exitCode": 3,
        "shortMessage": "out",
        "errorMessage": "sh exited with code 3.\nwhy",
        **NO_CALLS,
    }
