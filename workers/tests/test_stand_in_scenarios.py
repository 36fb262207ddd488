"""Each scenario of the stand-in for claude ends as it should in the ledger, with the real API and worker."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from testing.processes.web_process import serve
from testing.processes.worker_process import ended_run, register, until, working
from testing.world.cast import Cast

TOKENS = (12, 34, 56, 78)
# No other scenario is silent for SILENCE_SECONDS. LIMIT_SECONDS is the time limit of one that says something
# meanwhile. The two are seconds apart because a machine may be busy.
SILENCE_SECONDS = 12
LIMIT_SECONDS = 16


class Scenario(NamedTuple):
    """Lines for the stand-in, and the end of the run that they must lead to. `{said}` is a file to wait for."""

    lines: str
    status: str
    fault: str
    exit_code: int
    words: str
    # Without a result there are no turns and no cost, but the messages so far have used tokens.
    turns: int | None = 1
    cost: str | None = "0.0123"
    tokens: tuple[int | None, ...] = TOKENS


def refused(lines: str, fault: str, words: str) -> Scenario:
    """Returns a scenario in which the model's API answers with errors alone, which cost nothing."""
    return Scenario(lines, "failed", fault, 1, words, 1, "0", (0,) * 4)


def interrupted(lines: str, status: str, fault: str, words: str) -> Scenario:
    """Returns a scenario that is stopped before the model has said anything, and whose result says so."""
    return Scenario(lines, status, fault, 0, words, 1, "0", (0,) * 4)


def untold(lines: str, status: str, fault: str, exit_code: int, words: str) -> Scenario:
    """Returns a scenario that ends before the stand-in has written any message."""
    return Scenario(lines, status, fault, exit_code, words, None, None, (None,) * 4)


SCENARIOS = {
    "nothing asked": Scenario("Say hello.", "succeeded", "none", 0, "read a prompt of"),
    "success": Scenario("standin: success It is done.", "succeeded", "none", 0, "It is done."),
    "noise": Scenario("standin: noise\nstandin: success ok", "succeeded", "none", 0, "ok"),
    "50 MB line": Scenario("standin: big-line 50", "succeeded", "none", 0, "read a prompt of"),
    "big result": Scenario("standin: big-result 5", "succeeded", "none", 0, "é"),
    "two turns": Scenario(
        "standin: two-turns", "succeeded", "none", 0, "second turn", 3, "0.0369",
        (36, 102, 168, 234),
    ),
    "lingers": Scenario("standin: linger", "succeeded", "none", 0, "read a prompt of"),
    "max turns": Scenario("standin: max-turns", "failed", "client", 1, "limit of turns"),
    "max budget": Scenario("standin: max-budget", "failed", "client", 1, "budget"),
    "execution error": Scenario("standin: execution-error", "failed", "infra", 1, "at work"),
    "API 400": refused("standin: api-error 400", "client", "answered 400"),
    "API 529": refused("standin: api-error 529", "infra", "answered 529"),
    "not logged in": refused("standin: auth-error", "client", "authentication_failed"),
    "rate limit": refused("standin: rate-limit 600", "infra", "usage limit"),
    "crash": untold("standin: crash 7", "failed", "infra", 7, "code 7 without a result"),
    "no result": untold("standin: no-result", "failed", "infra", 0, "without a result"),
    "silence": interrupted("standin: hang", "failed", "infra", f"was silent for {SILENCE_SECONDS} s"),
    "out of time": Scenario(
        "standin: say I begin\nstandin: sleep 7\nstandin: say I go on\nstandin: sleep 60",
        "timed_out", "client", 0, f"time limit of {LIMIT_SECONDS} s", 3, "0.0246", (24, 68, 112, 156),
    ),
    "canceled": interrupted("standin: note {said}\nstandin: sleep 60", "canceled", "none", ""),
    "canceled, deaf": Scenario(
        "standin: ignore-term\nstandin: note {said}\nstandin: sleep 60", "canceled", "none", 137, "", None, None,
    ),
}  # fmt: skip


@pytest.fixture
def api(committed_cast: Cast, own_database: str, tmp_path) -> Iterator[httpx.Client]:
    """Serves the API and returns a client with a `pwk_` key.

    The lease is short, so that the worker hears of a cancel before it stops the run for its silence.
    """
    key = committed_cast.mint("pwk", role="admin")
    with (
        serve(own_database, log=tmp_path / "web.log", RUN_LEASE_SECONDS="12") as server,
        httpx.Client(
            base_url=server.api,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=30,
        ) as client,
    ):
        yield client


def post(api: httpx.Client, path: str, body: Any = None) -> Any:
    return api.post(path, json=body or {}).raise_for_status().json()


def as_scenario(run: dict[str, Any], expected: Scenario) -> Scenario:
    """Returns the run as a scenario, to compare it with the expected one, whose lines it takes."""
    message = f"{run['shortMessage']} {run['errorMessage']}"
    tokens = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens")
    assert (run["model"], len(run["sessionId"])) == ("stand-in-1", 36)
    assert run["durationMs"] is not None
    return Scenario(
        expected.lines,
        run["status"],
        run["faultClass"],
        run["exitCode"],
        expected.words if expected.words in message else message,
        run["numTurns"],
        run["costUsd"],
        tuple(run[field] for field in tokens),
    )


def test_every_scenario_ends_in_the_ledger_as_it_should(api, committed_cast, tmp_path):
    environment = committed_cast.environment.id
    url, token = str(api.base_url).removesuffix("/api/v1/"), committed_cast.mint("wrk")
    worker_id = register(tmp_path, url, token, max_concurrency=8)
    with working(tmp_path, "--stand-in", "--silence-seconds", str(SILENCE_SECONDS)):
        runs = {}
        said = tmp_path / "said"

        def start(name: str, scenario: Scenario) -> None:
            trigger = post(
                api,
                f"/environments/{environment}/triggers",
                {
                    "name": name,
                    "prompt": scenario.lines.format(said=said),
                    "mcpUrl": "https://mcp.example.com/mcp",
                    "workerId": worker_id,
                    "timeoutSeconds": LIMIT_SECONDS if name == "out of time" else 120,
                },
            )
            runs[name] = post(api, f"/triggers/{trigger['id']}/run")["id"]

        # The scenarios that take long come first.
        for name, scenario in reversed(SCENARIOS.items()):
            if name != "rate limit":
                start(name, scenario)
            if scenario.status == "canceled":
                # It is canceled after its first message, which names the model, and before it has been silent for
                # too long, even on a slow machine.
                until(said.exists)
                said.unlink()
                post(api, f"/runs/{runs[name]}/cancel")
        ended = {name: ended_run(api, run_id) for name, run_id in runs.items()}
        # The usage limit comes last, because the worker gets no other run after it.
        start("rate limit", SCENARIOS["rate limit"])
        ended["rate limit"] = ended_run(api, runs["rate limit"])

    found = {name: as_scenario(ended[name], expected) for name, expected in SCENARIOS.items()}
    assert found == SCENARIOS
    everything = api.get(f"/environments/{environment}/runs?limit=200").json()["items"]
    retries = {run["retryOfRunId"]: run for run in everything if run["retryOfRunId"]}
    infra = {runs[name] for name, each in SCENARIOS.items() if each.fault == "infra"}
    assert set(retries) == infra
    limited = ended["rate limit"]
    assert retries[limited["id"]]["availableAt"] == limited["endedAt"]
    worker = api.get(f"/workers/{worker_id}").raise_for_status().json()
    until_reset = moment(worker["limitedUntil"]) - moment(limited["endedAt"])
    assert timedelta(seconds=580) <= until_reset <= timedelta(seconds=660)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
