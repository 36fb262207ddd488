"""Live run events are on disk as soon as they come, redacted, in files of bounded size."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker.conformance.fake_api import FakeApi, FakeRun
from pipedai_worker.disk import spool
from pipedai_worker.disk.spool import RunEvents
from pipedai_worker.redact import Redactor

from .conftest import Workers, until

SECRET = "sk-live-0123456789abcdef"


def place(workers: Workers, api: FakeApi) -> Path:
    return workers.directory / ".pipedai" / "runs" / api.worker_id


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_of_the_stream_is_there_while_the_run_goes_on(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add(
        "standin: say working\nstandin: sleep 60", mcp_headers={"Authorization": f"Bearer {SECRET}"}
    )
    workers.start("--drain-seconds", "0", PIPEDAI_LOCAL_RUN_EVENTS="1")
    path = place(workers, api) / f"{run.id}.ndjson"
    until(lambda: path.exists() and len(events(path)) >= 2)
    first, second = events(path)[:2]
    assert set(first) == {"seq", "type", "ts", "payload"}
    assert (first["seq"], first["type"], first["payload"]["subtype"]) == (1, "system", "init")
    assert (second["seq"], second["type"]) == (2, "assistant")
    assert second["payload"]["message"]["content"][0]["text"] == "working"
    assert first["ts"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_secret_is_in_no_event(api: FakeApi, workers: Workers) -> None:
    run = api.add(f"standin: say {SECRET}", mcp_headers={"Authorization": f"Bearer {SECRET}"})
    workers.start("--once", PIPEDAI_LOCAL_RUN_EVENTS="1")
    api.until_ended(run)
    text = (place(workers, api) / f"{run.id}.ndjson").read_text()
    assert "[redacted]" in text
    assert SECRET not in text


def test_what_any_other_program_prints_is_told_by_stream(api: FakeApi, workers: Workers) -> None:
    run = api.add()
    worker = workers.start(
        *("--once", "--command", "sh -c 'echo out; echo err >&2'"), PIPEDAI_LOCAL_RUN_EVENTS="1"
    )
    assert worker.wait() == 0
    told = {
        event["type"]: event["payload"]["text"]
        for event in events(place(workers, api) / f"{run.id}.ndjson")
    }
    assert told == {"stdout": "out\n", "stderr": "err\n"}


def test_without_being_asked_for_there_are_none_and_a_bad_disk_costs_no_run(
    api: FakeApi, workers: Workers
) -> None:
    run = api.add()
    assert workers.start("--once").wait() == 0
    assert not (workers.directory / ".pipedai").exists()
    (workers.directory / ".pipedai").write_text("no directory")
    other = api.add()
    worker = workers.start("--once", PIPEDAI_LOCAL_RUN_EVENTS="1")
    assert worker.wait() == 0
    assert (run.status, other.status) == ("succeeded", "succeeded")
    assert worker.log.count("a run's events can't be written") == 1


def test_a_file_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LARGEST_FILE_BYTES", 5_000)
    monkeypatch.setattr(spool, "LARGEST_PAYLOAD_BYTES", 1_000)
    written = RunEvents(tmp_path, "run", Redactor())
    written.write("user", "x" * 2_000)
    for _ in range(100):
        written.write("assistant", "y" * 500)
    path = tmp_path / "run.ndjson"
    lines = events(path)
    assert lines[0]["payload"] == {"truncated": True, "bytes": 2_002}
    assert lines[-1]["type"] == "events.truncated"
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert path.stat().st_size <= 5_200


def test_only_the_newest_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT_RUNS", 3)
    for number in range(5):
        RunEvents(tmp_path, f"run-{number}", Redactor()).close()
        os.utime(tmp_path / f"run-{number}.ndjson", (number, number))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["run-2", "run-3", "run-4"]


def test_a_file_that_goes_while_room_is_made_costs_no_events(tmp_path: Path) -> None:
    # This link to nothing stands for a file that another run has just removed: it is listed but can't be read.
    (tmp_path / "gone.ndjson").symlink_to(tmp_path / "nothing")
    written = RunEvents(tmp_path, "run", Redactor())
    written.write("user", 1)
    assert events(tmp_path / "run.ndjson")[0]["payload"] == 1


def test_a_line_that_a_full_disk_cuts_off_is_removed_and_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = RunEvents(tmp_path, "run", Redactor())
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    written.write("user", "lost")
    monkeypatch.undo()
    written.write("user", "not appended to a piece of a line")
    assert (tmp_path / "run.ndjson").read_bytes() == b""


@pytest.mark.parametrize(
    "payload",
    [
        {"a": [SECRET, {SECRET: f"x{SECRET}x"}]},
        {"number": 123456789012},
        {"text": json.dumps({"inner": 'quote"d-secret-value'})},
        {"long": "z" * 6_000 + SECRET[:12]},
    ],
)
def test_a_payload_stays_json_without_its_secrets(tmp_path: Path, payload: Any) -> None:
    secrets = [SECRET, "123456789012", 'quote"d-secret-value']
    written = RunEvents(tmp_path, FakeRun().id, Redactor(secrets))
    written.write("user", payload)
    (path,) = tmp_path.iterdir()
    (event,) = events(path)
    assert event["payload"]
    text = path.read_text()
    assert not any(secret in text or json.dumps(secret)[1:-1] in text for secret in secrets)
    assert SECRET[:12] not in text


def test_a_payload_too_deep_to_look_through_is_left_out(tmp_path: Path) -> None:
    deep: Any = SECRET
    for _ in range(50_000):
        deep = [deep]
    RunEvents(tmp_path, "run", Redactor([SECRET])).write("user", deep)
    assert events(tmp_path / "run.ndjson")[0]["payload"] == {"truncated": True}
