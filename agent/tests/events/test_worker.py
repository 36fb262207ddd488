"""A real worker tells the API what its runs do, as they do it, over restarts and outages."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path

from pipedai_worker.conformance.fake_api import DROP, FakeApi, FakeRun
from pipedai_worker.stand_in.mcp_server import Tool
from tests.conftest import Worker, Workers, until

SECRET = "sk-live-0123456789abcdef"


def kinds(run: FakeRun) -> list[str]:
    return [event["type"] for event in run.events]


def in_order(run: FakeRun) -> bool:
    return [event["seq"] for event in run.events] == list(range(1, len(run.events) + 1))


def spooled(workers: Workers) -> list[Path]:
    return list((workers.state / "events").glob("*.ndjson"))


def test_events_are_told_while_the_run_goes_on_without_its_secrets(
    api: FakeApi, workers: Workers
) -> None:
    go = workers.directory / "go"
    token = base64.b64encode(f"Bearer {api.worker_token}".encode()).decode()
    run = api.add(
        f"standin: say {token}\nstandin: say It is {SECRET[:9]}\nstandin: say {SECRET[9:]}\nstandin: deny\n"
        f"standin: think Hm.\nstandin: warn careful\nstandin: wait-for {go}\nstandin: success Done.",
        mcp_headers={"Authorization": f"Bearer {SECRET}"},
        record_events="always",
    )
    other = api.add("standin: say unheard")
    api.capacity = 2
    worker = workers.start()
    api.until(lambda: "thinking" in kinds(run) and "stderr" in kinds(run))
    assert run.status == "running"
    go.touch()
    api.until_ended(run)
    # The last events come before the outcome, so that whoever watches the run until its end sees them.
    assert kinds(run)[-2:] == ["message", "result"]
    assert in_order(run)
    told = [(event["type"], event["text"]) for event in run.events]
    assert ("message", "It is [redacted]") in told
    assert ("tool_call", "Bash") in told
    assert ("result", "Done.") in told
    assert "".join(text for kind, text in told if kind == "stderr") == "careful\n"
    assert SECRET[9:] not in json.dumps(run.events)
    assert token[20:40] not in json.dumps(run.events)
    api.until_ended(other)
    assert other.events == []
    assert api.count("events", other) == 0
    until(lambda: not spooled(workers))
    assert worker.stop() == 0


def test_events_outlive_lost_answers_an_outage_and_a_kill_of_the_worker(
    api: FakeApi, workers: Workers
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"
    (workers.directory / "talk").write_text(script)
    api.fail("events", DROP, times=2)
    run = api.add(record_events="always")
    worker = workers.start("--command", f"sh {workers.directory / 'talk'}")
    api.until(lambda: len(run.events) >= 20)
    api.fail("events", 503, times=10_000)
    (spool,) = spooled(workers)
    before = len(run.events)
    until(lambda: len(spool.read_bytes().splitlines()) >= before + 20)
    worker.stop(signal.SIGKILL)
    assert len(run.events) == before
    kept = [json.loads(line) for line in spool.read_bytes().splitlines()]
    api.faults.clear()
    workers.start("--once", "--command", "true")
    api.until(lambda: len(run.events) >= len(kept))
    assert run.events == kept
    text = "".join(event["text"] for event in kept)
    assert text.splitlines()[:40] == [f"line {number}" for number in range(1, 41)]
    until(lambda: not spooled(workers))
    assert api.until_ended(run)["errorMessage"] == "worker restarted"


def test_a_flood_of_output_is_bounded_on_disk_and_in_memory(api: FakeApi, workers: Workers) -> None:
    flood, go = workers.directory / "flood", workers.directory / "go"
    run = api.add(
        f"standin: wait-for {flood}\nstandin: flood 16\nstandin: wait-for {go}",
        record_events="always",
    )
    worker = workers.start()
    api.until(lambda: run.events)
    before = memory_kib(worker, "VmRSS")
    flood.touch()
    api.until(lambda: kinds(run)[-1] == "truncated")
    assert memory_kib(worker, "VmHWM") < before + 8 * 1024
    (spool,) = spooled(workers)
    assert 4 * 1024 * 1024 < spool.stat().st_size <= 5 * 1024 * 1024
    assert in_order(run)
    go.touch()
    assert api.until_ended(run)["status"] == "succeeded"


def memory_kib(worker: Worker, kind: str) -> int:
    """Return the memory that the worker has now (VmRSS), or had at most (VmHWM)."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (size,) = [line.split()[1] for line in status.splitlines() if line.startswith(kind)]
    return int(size)


def test_a_run_that_somebody_watches_meanwhile_tells_what_it_has_kept_and_what_comes(
    api: FakeApi, workers: Workers
) -> None:
    go, api.lease_seconds = workers.directory / "go", 1
    run = api.add(f"standin: say before\nstandin: wait-for {go}\nstandin: success Done.")
    workers.start()
    until(lambda: [b"before" in path.read_bytes() for path in spooled(workers)] == [True])
    assert api.count("events") == 0
    with api.lock:
        run.watched = True
    api.until(lambda: "message" in kinds(run))
    assert run.status == "running"
    go.touch()
    assert api.until_ended(run)["status"] == "succeeded"
    assert in_order(run)
    assert kinds(run)[-2:] == ["message", "result"]
    until(lambda: not spooled(workers))


def test_with_failures_events_stay_on_disk_until_a_run_has_not_succeeded(
    api: FakeApi, workers: Workers
) -> None:
    go, api.lease_seconds, api.capacity = workers.directory / "go", 3, 4
    well = api.add("standin: say unheard")
    failed = api.add(f"standin: say begun\nstandin: wait-for {go}\nstandin: max-turns")
    canceled, lost = (api.add("standin: say begun\nstandin: hang") for _ in range(2))
    workers.start()
    assert api.until_ended(well)["status"] == "succeeded"
    until(lambda: [b"begun" in path.read_bytes() for path in spooled(workers)] == [True] * 3)
    assert api.count("events") == 0
    go.touch()
    with api.lock:
        canceled.cancel_requested = True
        # The service has given the run up.
        lost.status = "failed"
    api.until(lambda: all("message" in kinds(run) for run in (failed, canceled, lost)))
    until(lambda: not spooled(workers))
    assert kinds(failed)[-1] == "result"
    assert all(in_order(run) for run in (failed, canceled, lost))
    told = [kind for kind, run_id, _ in api.calls if run_id == failed.id and kind != "heartbeat"]
    assert told == ["complete", "events"]
    assert api.count("events", well) == 0


def test_kept_events_outlive_an_outage_and_a_kill_of_the_worker(
    api: FakeApi, workers: Workers
) -> None:
    api.capacity = 3
    well = api.add("standin: say unheard")
    failed = api.add("standin: max-turns")
    cut = api.add("standin: say begun\nstandin: hang")
    api.fail("complete", 503, times=10_000)
    worker = workers.start()
    until(lambda: len(list((workers.state / "outcomes").glob("*.json"))) == 2)
    until(lambda: any(b"begun" in path.read_bytes() for path in spooled(workers)))
    worker.stop(signal.SIGKILL)
    assert len(spooled(workers)) == 3
    assert api.count("events") == 0
    api.faults.clear()
    workers.start("--once")
    until(lambda: not spooled(workers))
    assert kinds(failed)[-1] == "result"
    assert "message" in kinds(cut)
    assert api.until_ended(cut)["errorMessage"] == "worker restarted"
    assert (well.status, api.count("events", well)) == ("succeeded", 0)


def test_a_call_has_one_id_in_the_events_and_in_the_report(api: FakeApi, workers: Workers) -> None:
    api.tools = {
        "look": Tool({"name": "look", "annotations": {"readOnlyHint": True}}, lambda _: "Here.")
    }
    run = api.add("Look.", record_events="always")
    workers.start("--once")
    (call,) = api.until_ended(run)["toolCallList"]
    ids = [
        event["data"]["callId"]
        for event in run.events
        if event["type"] in {"tool_call", "tool_result"}
    ]
    assert call["callId"].startswith("toolu_")
    assert ids == [call["callId"]] * 2
