"""What a run does can be followed as it happens, from the worker's program to `pipedai run logs`."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from pipedai.env import BASE_DIR
from testing.processes.web_process import Server, free_port, serve
from testing.processes.worker_process import ended_run, register, until, working
from testing.world.cast import Cast
from triggers.models import RunEventLog

SECRET = "planted-0123456789abcdef"


def test_a_run_is_followed_while_it_goes_on_and_to_its_end(
    committed_cast: Cast, own_database: str, tmp_path: Path
) -> None:
    cast, go, shown = committed_cast, tmp_path / "go", tmp_path / "shown.ndjson"
    key = cast.mint("pwk", role="admin")
    prompt = (
        f"standin: think Hm.\nstandin: say It is {SECRET[:10]}\nstandin: say {SECRET[10:]}!\n"
        f"standin: wait-for {go}\nstandin: success Done."
    )
    with (
        serve(own_database, log=tmp_path / "web.log") as server,
        httpx.Client(
            base_url=server.api, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        ) as api,
    ):
        body = {
            "name": "followed",
            "prompt": prompt,
            "mcpUrl": "https://mcp.example.com/mcp",
            "mcpHeaders": {"Authorization": f"Bearer {SECRET}"},
            "workerId": register(tmp_path, server.url, cast.mint("wrk")),
            "recordEvents": "always",
        }
        path = f"/environments/{cast.environment.id}/triggers"
        trigger = api.post(path, json=body).raise_for_status().json()
        run = api.post(f"/triggers/{trigger['id']}/run", json={}).raise_for_status().json()
        with working(tmp_path, "--stand-in"):
            with shown.open("wb") as output:
                follower = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "pipedai_cli", "run", "logs", run["id"]),
                        *("--follow", "--json"),
                    ],
                    env={
                        "PATH": os.environ["PATH"],
                        "PYTHONPATH": str(BASE_DIR / "cli"),
                        "HOME": str(tmp_path),
                        "PIPEDAI_URL": server.url,
                        "PIPEDAI_KEY": key,
                    },
                    stdout=output,
                )
            # The thought and both pieces of the secret are shown while the run goes on.
            until(lambda: "!" in shown.read_text())
            go.touch()
            assert ended_run(api, run["id"])["status"] == "succeeded"
            assert follower.wait(60) == 0
            stored = api.get(f"/runs/{run['id']}/events").raise_for_status().json()["items"]

            # By default only the events of a failure come, after its end.
            def ended(prompt: str) -> Any:
                change = {"recordEvents": "failures", "prompt": prompt}
                api.patch(f"/triggers/{trigger['id']}", json=change).raise_for_status()
                queued = api.post(f"/triggers/{trigger['id']}/run", json={}).raise_for_status()
                return ended_run(api, queued.json()["id"])

            well, ill = ended("standin: success Done."), ended("standin: max-turns")
            assert (well["status"], ill["status"]) == ("succeeded", "failed")
            until(lambda: '"result"' in api.get(f"/runs/{ill['id']}/events").text)
            none = api.get(f"/runs/{well['id']}/events").raise_for_status().json()
            assert "because it succeeded" in none["whyNone"]
            assert RunEventLog.objects.filter(run_id=well["id"]).count() == 0
            worker = f"/workers/{body['workerId']}"
            assert api.get(worker).json()["status"] == "online"
        # The worker was stopped by SIGTERM, and has signed off.
        assert api.get(worker).json()["status"] == "offline"
    told = [json.loads(line) for line in shown.read_text().splitlines()]
    assert told == stored
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    texts = [(event["type"], event["text"]) for event in told if event["type"] != "status"]
    assert texts == [
        ("thinking", "Hm."),
        ("message", "It is [redacted]"),
        ("message", "[redacted]!"),
        ("message", "Done."),
        ("result", "Done."),
    ]


def test_events_of_an_outage_arrive_after_it_in_order_and_once(
    committed_cast: Cast, own_database: str, tmp_path: Path
) -> None:
    """The run ends while the API is away, and nobody waits for the API."""
    cast, go, ended = committed_cast, tmp_path / "go", tmp_path / "ended"
    key, port = cast.mint("pwk", role="admin"), str(free_port())
    talk = tmp_path / "talk.sh"
    talk.write_text(
        f"echo before\nwhile [ ! -e {go} ]; do sleep 0.05; done\n"
        f"for i in 1 2 3 4 5 6 7 8 9; do echo away $i; sleep 0.02; done\ntouch {ended}\n"
    )
    headers = {"Authorization": f"Bearer {key}"}

    def served() -> contextlib.AbstractContextManager[Server]:
        return serve(own_database, log=tmp_path / "web.log", PORT=port)

    with (
        contextlib.ExitStack() as worker,
        httpx.Client(headers=headers, trust_env=False) as api,
    ):
        with served() as server:
            api.base_url = httpx.URL(server.api)
            worker_id = register(tmp_path, server.url, cast.mint("wrk"))
            worker.enter_context(working(tmp_path, "--command", f"sh {talk}"))
            body = {
                "name": "talks",
                "prompt": "Talk.",
                "mcpUrl": "https://mcp.example.com/mcp",
                "workerId": worker_id,
                "recordEvents": "always",
            }
            path = f"/environments/{cast.environment.id}/triggers"
            trigger = api.post(path, json=body).raise_for_status().json()
            run = (
                api.post(f"/triggers/{trigger['id']}/run", json={}).raise_for_status().json()["id"]
            )
            events = f"/runs/{run}/events?limit=100"
            until(lambda: "before" in api.get(events).raise_for_status().text)
        go.touch()
        until(ended.exists)
        with served():
            assert ended_run(api, run)["status"] == "succeeded"
            until(lambda: "away 9" in api.get(events).raise_for_status().text)
            told = api.get(events).json()["items"]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    lines = "".join(event["text"] for event in told if event["type"] == "stdout").splitlines()
    assert lines == ["before", *(f"away {number}" for number in range(1, 10))]
