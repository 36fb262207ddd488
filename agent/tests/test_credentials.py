"""A run goes on when its MCP server's headers are replaced, and nobody else learns either of them."""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from pipedai_worker.api import Api
from pipedai_worker.conformance.fake_api import FakeApi, FakeRun, iso, now
from pipedai_worker.conformance.serving import Service
from pipedai_worker.running.assigned import AssignedRun
from pipedai_worker.running.run import RunCredentials

from .conftest import Workers, until

OLD, NEW = "planted-old-0123456789", "planted-new-9876543210"


def replace_headers(api: FakeApi, run: FakeRun) -> None:
    with api.lock:
        run.mcp_headers = {"Authorization": f"Bearer {NEW}"}


def add(api: FakeApi, *lines: str, expire_in: float) -> FakeRun:
    run = FakeRun(
        "\n".join(f"standin: {line}" for line in lines),
        mcp_headers={"Authorization": f"Bearer {OLD}"},
        headers_expire_in=expire_in,
        record_events="always",
    )
    run.mcp_url = f"{api.mcp_url}/{run.id}"
    with api.lock:
        api.runs[run.id] = run
        api.lock.notify_all()
    return run


def told(tmp_path: Path, api: FakeApi) -> str:
    """Return all that the worker has written, to files, to its log, and to the API, but for its registration."""
    with api.lock:
        sent = [json.dumps(body) for _, _, body in api.calls]
    # A file may go away meanwhile.
    files = []
    for path in tmp_path.rglob("*"):
        try:
            files.append(path.read_bytes().decode(errors="replace") if path.is_file() else "")
        except FileNotFoundError:
            continue
    return "\n".join([*sent, *files])


def seen_of_processes() -> str:
    """Return the arguments and the environments of all processes that this user may see."""
    found = []
    for path in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_headers_expire_by_the_servers_clock_whatever_ours_says() -> None:
    with closing(Api("http://api.example")) as api:
        api._learn_clock(time.time() - 3600.0, 0.0)
        run = AssignedRun.parse(
            {
                "id": str(uuid4()),
                "prompt": "",
                "mcpUrl": "http://mcp.example",
                "headersExpireAt": iso(now() - timedelta(seconds=3600 - 300)),
            }
        )
        assert run is not None
        expire_at = RunCredentials(api, run).present.expire_at
        assert expire_at is not None
        assert 0 < expire_at - time.monotonic() <= 300


def test_headers_for_another_url_are_not_sent(
    api: FakeApi, workers: Workers, tmp_path: Path
) -> None:
    moved, called = tmp_path / "moved", tmp_path / "called"
    lines = ("call look", f"wait-for {moved}", "call look", f"note {called}", "success")
    run = add(api, *lines, expire_in=3600)
    workers.start()
    api.until(lambda: run.calls_taken == 1)
    replace_headers(api, run)
    with api.lock:
        run.mcp_url = "http://mcp.example/another-server"
    moved.touch()
    outcome = api.until_ended(run)
    assert api.count("credentials") >= 1
    assert [call["outcome"] for call in outcome["toolCallList"]] == ["ok", "error"]


def test_neither_header_is_kept_or_told_over_a_swap_a_kill_and_a_restart(
    api: FakeApi, workers: Workers, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped"
    run = add(
        api,
        *("call look", f"wait-for {swapped}", "call look", f"note {tmp_path / 'called'}"),
        f"wait-for {tmp_path / 'never'}",
        expire_in=3600,
    )
    worker = workers.start()
    api.until(lambda: run.calls_taken == 1)
    replace_headers(api, run)
    swapped.touch()
    api.until(lambda: run.calls_taken == 2)
    # The API learns which headers the server has refused.
    (refused,) = [body for kind, _, body in api.calls if kind == "credentials"]
    assert list(refused) == ["refusedExpiresAt"]
    until((tmp_path / "called").exists)
    # The stand-in repeats what the server told it, and the worker sends that as events.
    api.until(lambda: sum("[redacted]" in json.dumps(event) for event in run.events) >= 2)
    assert OLD not in (seen := seen_of_processes())
    assert NEW not in seen
    worker.stop(signal.SIGKILL)
    workers.start()
    outcome = api.until_ended(run)
    assert (outcome["status"], outcome["faultClass"]) == ("failed", "infra")
    assert outcome["toolCalls"] == {"total": 2, "effects": 0, "unknown": 0}
    written = told(tmp_path, api)
    assert OLD not in written
    assert NEW not in written


def test_calls_are_refused_while_the_api_is_away_and_pass_when_it_is_back(
    api: FakeApi, url: str, workers: Workers, tmp_path: Path
) -> None:
    away, refused, back = (tmp_path / name for name in ("away", "refused", "back"))
    with closing(Service(api)) as service:
        # The run's MCP server is served at `url`, also while the API is away.
        api.mcp_url = f"{url}/mcp"
        run = add(
            api,
            *("call look", f"wait-for {away}", "call look", f"note {refused}"),
            *(f"wait-for {back}", "call look", "success"),
            expire_in=20,
        )
        service.start()
        workers.start("--api-url", service.url)
        api.until(lambda: run.calls_taken == 1)
        service.stop()
        replace_headers(api, run)
        away.touch()
        until(refused.exists)
        asked = api.count("credentials")
        service.start()
        api.until(lambda: api.count("credentials") > asked)
        back.touch()
        outcome = api.until_ended(run)
        assert outcome["status"] == "succeeded"
        assert [call["outcome"] for call in outcome["toolCallList"]] == ["ok", "error", "ok"]
