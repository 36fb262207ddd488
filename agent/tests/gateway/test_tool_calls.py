"""What is known of a run's tool calls, also after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai_worker.disk import tool_calls
from pipedai_worker.disk.journal import HeldRun, Journal
from pipedai_worker.disk.tool_calls import ERROR, IDEMPOTENT, NO_EFFECT, OK, POSSIBLE, ToolCalls
from pipedai_worker.redact import Redactor
from pipedai_worker.running.run import _open_calls

from .conftest import AGENT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def test_counts_and_list_have_the_form_that_the_api_takes(path: Path) -> None:
    calls = ToolCalls(path)
    looked, sent = calls.begin("look", NO_EFFECT), calls.begin("send", POSSIBLE)
    calls.begin("set", IDEMPOTENT)
    calls.end(looked, OK)
    calls.end(sent, ERROR)
    calls.end(sent, OK)
    assert calls.counts() == {"total": 3, "effects": 1, "unknown": 1}
    items = calls.listed()
    assert [(item["tool"], item["outcome"], item["effect"]) for item in items] == [
        ("look", "ok", "none"),
        ("send", "error", "possible"),
        ("set", "unknown", "idempotent"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", items[0]["at"])
    assert items[0]["durationMs"] >= 0
    assert items[2]["durationMs"] is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ToolCalls.read(path).listed() == items
    assert ToolCalls.read(path).counts() == calls.counts()
    calls.close()


def test_a_call_that_was_begun_is_known_after_a_kill(path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipedai_worker.disk.tool_calls import *\n"
        "calls = ToolCalls(Path(sys.argv[1]))\n"
        "calls.end(calls.begin('look', NO_EFFECT), OK); calls.begin('send', POSSIBLE)\n"
        "print('begun', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(AGENT)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
    left = ToolCalls.read(path)
    assert left.counts() == {"total": 2, "effects": 1, "unknown": 1}
    assert [item["outcome"] for item in left.listed()] == ["ok", "unknown"]


def test_a_line_that_a_crash_cut_off_is_no_call(path: Path) -> None:
    calls = ToolCalls(path)
    calls.begin("send", POSSIBLE)
    calls.close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        assert ToolCalls.read(path).counts()["total"] in {1, 1 + (length == len(whole) - 1)}


def test_a_run_without_a_file_made_no_calls(path: Path) -> None:
    assert ToolCalls.read(path).counts() == {"total": 0, "effects": 0, "unknown": 0}
    assert ToolCalls.read(path).listed() == []


def test_the_file_and_the_list_are_bounded_and_counts_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(tool_calls, "SUMMARY_AFTER_BYTES", 32 * 1024)
    calls = ToolCalls(path)
    kept = [calls.begin("never answered", POSSIBLE) for _ in range(3)]
    for _ in range(1500):
        calls.end(calls.begin("look" * 99, NO_EFFECT), OK)
    calls.end(kept[1], ERROR)
    assert calls.counts() == {"total": 1503, "effects": 3, "unknown": 2}
    assert len(calls.listed()) == 500
    assert {len(item["tool"]) for item in calls.listed()} == {200, 14}
    assert [item["outcome"] for item in calls.listed()[:3]] == ["unknown", "error", "unknown"]
    left = ToolCalls.read(path)
    assert (left.counts(), left.listed()) == (calls.counts(), calls.listed())
    assert path.stat().st_size < 500 * 400 + 40 * 1024
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    calls.close()


def test_the_summary_is_found_after_a_crash_of_the_machine(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append("directory" * stat.S_ISDIR(os.fstat(file).st_mode))
    )
    monkeypatch.setattr(tool_calls, "SUMMARY_AFTER_BYTES", 100)
    calls = ToolCalls(path)
    calls.end(calls.begin("look", NO_EFFECT), OK)
    assert synced == ["directory", "", "", "directory"]
    calls.close()


def test_a_disk_that_hangs_does_not_hold_up_the_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, works = threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        hangs.set()
        assert works.wait(60)

    calls = ToolCalls(path)
    monkeypatch.setattr(os, "fsync", fsync)
    begins = threading.Thread(target=calls.begin, args=("send", POSSIBLE))
    begins.start()
    assert hangs.wait(30)
    found: list[object] = []
    asks = threading.Thread(target=lambda: found.append(calls.counts()), daemon=True)
    asks.start()
    asks.join(10)
    told = list(found)
    works.set()
    begins.join()
    assert told == [{"total": 1, "effects": 1, "unknown": 1}]
    calls.close()


def test_a_call_that_names_no_tool_has_a_name_that_the_api_takes(path: Path) -> None:
    calls = ToolCalls(path)
    for name in ("", "\0\n", "x" * (tool_calls.LONGEST_SEARCHED + 1)):
        calls.begin(name, POSSIBLE)
    assert {item["tool"] for item in calls.listed()} == {tool_calls.UNNAMED}
    calls.close()


def test_a_run_writes_no_secret_down_in_the_name_of_a_tool(path: Path) -> None:
    calls = _open_calls(path, Redactor(["Bearer planted-0123"]))
    assert calls is not None
    for name in (
        "planted-0123",
        "x" * 195 + "planted-0123",
        "plant\x01ed-0123",
        "\0" * 300 + "late",
    ):
        calls.begin(name, POSSIBLE)
    calls.close()
    assert [item["tool"] for item in ToolCalls.read(path).listed()] == [
        *("[redacted]", "x" * 195 + "[reda", "[redacted]", "late")
    ]


def test_files_that_a_kill_left_behind_are_removed_at_the_next_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.hold(HeldRun("held", "claim"))
    for run in ("held", "gone"):
        ToolCalls(journal.calls_of(run)).close()
    journal.calls_of("held").with_name(".held.ndjson.0123456789abcdef").touch()
    journal.sweep()
    assert list((tmp_path / "calls").iterdir()) == [journal.calls_of("held")]
    journal.close()


@given(st.lists(st.tuples(st.text(max_size=250), st.sampled_from([NO_EFFECT, POSSIBLE]))))
def test_what_is_read_is_what_was_written(made: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        path = Path(directory) / "calls"
        calls = ToolCalls(path)
        for number, (tool, effect) in enumerate(made):
            begun = calls.begin(tool, effect)
            if number % 3:
                calls.end(begun, ERROR if number % 2 else OK)
        left = ToolCalls.read(path)
        assert (left.counts(), left.listed()) == (calls.counts(), calls.listed())
        for item in left.listed():
            json.dumps(item).encode()
            item["tool"].encode()
        calls.close()


def test_a_full_disk_refuses_the_call_and_spoils_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = ToolCalls(path)
    calls.begin("one", POSSIBLE)
    written = os.write

    def half(file: int, content: bytes) -> int:
        if len(content) < 60:
            raise OSError(28, "No space left on device")
        return written(file, content[: len(content) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            calls.begin("two", POSSIBLE)
    three = calls.begin("three", POSSIBLE)
    calls.end(three, OK)
    left = ToolCalls.read(path)
    assert [item["tool"] for item in left.listed()] == ["one", "three"]
    assert (left.counts(), left.listed()) == (calls.counts(), calls.listed())
    calls.close()


def test_threads_share_it(path: Path) -> None:
    calls = ToolCalls(path)

    def work() -> None:
        for _ in range(20):
            calls.end(calls.begin("look", NO_EFFECT), OK)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ToolCalls.read(path).counts() == {"total": 80, "effects": 0, "unknown": 0}
    calls.close()


def test_an_existing_file_is_not_overwritten(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FileExistsError):
        ToolCalls(path)
