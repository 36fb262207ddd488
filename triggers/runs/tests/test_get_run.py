"""GET /runs/:id"""

from datetime import timedelta

import pytest

from testing.probes.shapes import A_TIME
from testing.world.cases import cases
from testing.world.runs import NOON, Runs
from testing.world.shown_rows import shown_run
from triggers.models import Run, Trigger


@pytest.fixture
def get(cast):
    client = cast.client(cast.viewer)

    def getting(run_id):
        response = client.get(f"/api/v1/runs/{run_id}")
        assert response.status_code == 200
        return response.json()

    return getting


def queued(cast, runs, run_id, **changes):
    return shown_run(
        cast,
        **{
            "id": str(run_id),
            "triggerId": str(runs.trigger_id),
            "availableAt": "2026-05-04T12:00:00.000Z",
            "queuedAt": "2026-05-04T12:00:00.000Z",
            **changes,
        },
    )


def test_a_queued_run_has_little_to_tell(cast, runs, get):
    run_id = runs.queue()
    assert runs.now == NOON
    assert get(run_id) == queued(cast, runs, run_id)


def test_an_ended_run_tells_all(cast, runs, get):
    run_id = runs.queue(payload={"since": "monday"})
    runs.wait(seconds=1)
    runs.claim(run_id)
    runs.wait(seconds=1.5)
    runs.start(run_id)
    runs.wait(seconds=62.0345)
    told = {
        "exitCode": 1,
        "shortMessage": "It broke.",
        "errorMessage": "It broke,\nand how.",
        "faultClass": "client",
        "model": "claude-opus",
        "inputTokens": 9007199254740991,
        "outputTokens": 2,
        "cacheReadTokens": 3,
        "cacheCreationTokens": 0,
        "numTurns": 4,
        "sessionId": "s-1",
    }
    runs.complete(run_id, "failed", costUsd=0.5, **told)
    assert get(run_id) == queued(
        cast,
        runs,
        run_id,
        **told,
        status="failed",
        costUsd="0.5",
        payload={"since": "monday"},
        claimedAt="2026-05-04T12:00:01.000Z",
        startedAt="2026-05-04T12:00:02.500Z",
        endedAt="2026-05-04T12:01:04.534Z",
        durationMs=62034,
        willRetry=False,
        phases=[
            {"phase": phase, "from": f"2026-05-04T12:{since}Z", "to": f"2026-05-04T12:{to}Z"}
            for phase, since, to in (
                ("queued", "00:00.000", "00:01.000"),
                ("claimed", "00:01.000", "00:02.500"),
                ("running", "00:02.500", "01:04.534"),
            )
        ],
    )


def test_a_run_names_those_before_and_after_it_of_its_trigger(cast, runs, get):
    first = runs.ended()
    Runs.of(cast, name="Another").queue()
    second, third = runs.queue(), runs.queue()
    beside = [(get(each)["previousRunId"], get(each)["nextRunId"]) for each in (first, second)]
    assert beside == [(None, str(second)), (str(first), str(third))]
    path = f"/api/v1/triggers/{runs.trigger_id}/run"
    made = cast.client(cast.operator).post(path, {}, content_type="application/json").json()
    assert (made["previousRunId"], made["nextRunId"]) == (str(third), None)


def test_no_more_than_the_last_50_phases_are_shown(runs, get):
    run_id = runs.ended()
    times = [NOON + timedelta(seconds=number) for number in range(1, 77)]
    Run.objects.filter(id=run_id).update(spell_times=times)
    shown = get(run_id)["phases"]
    assert (len(shown), shown[0]["phase"], shown[-1]["phase"]) == (50, "waiting", "queued")


@cases(
    ("sent", "shown"),
    [
        ("0.0120", "0.012"),
        (0, "0"),
        (1e-6, "0.000001"),
        ("12", "12"),
        (12.5, "12.5"),
        ("99999999", "99999999"),
    ],
    undone=True,
)
def test_money_is_a_decimal_string(runs, get, sent, shown):
    assert get(runs.ended(costUsd=sent))["costUsd"] == shown


def test_a_run_takes_no_negative_time_if_the_clock_was_put_back(runs, get):
    run_id = runs.running()
    runs.wait(seconds=-5)
    runs.complete(run_id)
    assert get(run_id)["durationMs"] == 0


def test_a_run_that_never_started_has_no_duration(runs, get):
    run_id = runs.claimed()
    runs.wait(seconds=5)
    runs.complete(run_id, "failed")
    shown = get(run_id)
    assert (shown["startedAt"], shown["durationMs"]) == (None, None)


def test_a_cancel_that_was_requested_shows(runs, get):
    run_id = runs.running()
    runs.cancel(run_id)
    shown = get(run_id)
    assert (shown["status"], shown["cancelRequested"]) == ("running", True)


def test_a_retry_names_the_run_that_it_retries(runs, get):
    run_id = runs.lost()
    retry = runs.retry_of(run_id)
    shown = get(retry["id"])
    assert (shown["source"], shown["attempt"], shown["retryOfRunId"]) == ("retry", 2, str(run_id))
    assert get(run_id)["errorMessage"].startswith("worker lost: no heartbeat for ")


def test_a_late_result_is_kept_as_it_was_reported(runs, get):
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    with pytest.raises(Exception, match="its retry has been claimed"):
        runs.complete(run_id, "succeeded", shortMessage="All done.", costUsd="0.10")
    late = get(run_id)["lateResult"]
    assert late == {
        "receivedAt": A_TIME,
        "status": "succeeded",
        "shortMessage": "All done.",
        "costUsd": "0.1",
    }


def test_it_keeps_the_prompt_and_model_that_it_was_queued_with(cast, get):
    runs = Runs.of(cast, prompt="Old.", model="old-model")
    run_id = runs.queue()
    cast.client(cast.owner).patch(
        f"/api/v1/triggers/{runs.trigger_id}", {"prompt": "New.", "model": "new-model"}
    )
    shown = get(run_id)
    assert (shown["prompt"], shown["model"]) == ("Old.", "old-model")


def test_it_shows_the_url_that_it_was_handed_out_with(cast, get):
    client = cast.key_client()
    run_id = client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
    assert get(run_id)["mcpUrl"] is None
    cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")
    assert get(run_id)["mcpUrl"] == "https://mcp.example/v1"


def test_the_run_of_a_deleted_trigger_stays_in_the_ledger(runs, get):
    run_id = runs.ended()
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
    assert get(run_id)["triggerName"] == "Nightly report"
