"""A tool call that its worker was killed in is counted as unknown, and its run is restarted only if it may be."""

import shlex
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.gateway.servers import TOKEN, Exchange, McpServer, serving

from testing.processes.web_process import Server
from testing.processes.worker_process import ended_run, register, until, working
from testing.world.cast import Cast

pytestmark = pytest.mark.long

# Any MCP client can be a worker's program: this one calls a tool, and waits for the answer.
PROGRAM = """
import json, os, urllib.request
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "send_mail"}}
headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
data = json.dumps(body).encode()
urllib.request.urlopen(urllib.request.Request(os.environ["PIPEDAI_MCP_URL"], data, headers)).read()
"""


@pytest.fixture
def api(server: Server, committed_cast: Cast) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {committed_cast.mint('pwk', role='admin')}"}
    with httpx.Client(base_url=server.api, headers=headers, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def silent() -> Iterator[McpServer]:
    """Serves an MCP server that takes tool calls and never answers one."""
    mcp = McpServer()
    mcp.ways["tools/call"] = Exchange.until_gone
    with serving(mcp):
        yield mcp


def test_a_killed_workers_call_is_unknown_and_its_run_is_restarted_only_if_it_may(
    api, server, silent, committed_cast, tmp_path
):
    arguments = ("--command", shlex.join([sys.executable, "-c", PROGRAM]))
    token = committed_cast.mint("wrk")
    worker_id = register(tmp_path, server.url, token, max_concurrency=2)

    def start(may: bool) -> Any:
        """Makes a trigger, which restarts its runs after effects or does not, and queues a run of it."""
        values = {
            "name": f"retryAfterEffects {may}",
            "prompt": "Send it.",
            "mcpUrl": silent.url,
            "mcpHeaders": {"Authorization": TOKEN},
            "workerId": worker_id,
            "maxRetries": 3,
            "retryAfterEffects": may,
        }
        path = f"/environments/{committed_cast.environment.id}/triggers"
        trigger = api.post(path, json=values).raise_for_status().json()
        return api.post(f"/triggers/{trigger['id']}/run", json={}).raise_for_status().json()

    def runs_of(run: dict[str, str]) -> Any:
        answer = api.get(f"/triggers/{run['triggerId']}/runs").raise_for_status().json()
        return answer["items"]

    with working(tmp_path, *arguments) as worker:
        runs = {may: start(may) for may in (True, False)}
        until(lambda: silent.methods().count("tools/call") == 2)
        worker.kill()
        worker.wait()
    with working(tmp_path, *arguments):
        for run in runs.values():
            shown = ended_run(api, run["id"])
            assert (shown["status"], shown["faultClass"]) == ("failed", "infra")
            assert shown["errorMessage"] == "worker restarted"
            assert shown["toolCalls"] == {"total": 1, "effects": 1, "unknown": 1}
        until(lambda: len(runs_of(runs[True])) == 2)
        assert [run["id"] for run in runs_of(runs[False])] == [runs[False]["id"]]
