"""Events hold no secret, however it is cut, and nothing that the API would refuse. Their trouble reaches no run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipedai_worker.executors.watch import Watch
from pipedai_worker.redact import Redactor
from pipedai_worker.running import process
from pipedai_worker.running.process import Ending, Head
from pipedai_worker.running.reporting import Recorder
from tests.jobs import make_job

from .parts import EventApi, Recording, saying

SECRET = "sk-live-0123456789abcdef"
CUTS = range(1, len(SECRET))


def has_piece(events: Any) -> bool:
    """Tell whether 6 characters of the secret, or more, stand anywhere in the events."""
    text = json.dumps(events)
    return any(SECRET[start : start + 6] in text for start in range(len(SECRET) - 5))


def test_a_secret_that_is_cut_between_messages_is_told_in_no_pieces(tmp_path: Path) -> None:
    recording = Recording(tmp_path, f"Bearer {SECRET}")
    for cut in CUTS:
        recording.recorder.take("assistant", saying(f"It is {SECRET[:cut]}"))
        recording.recorder.take("system", {"subtype": "status"})
        recording.recorder.take("assistant", saying(f"{SECRET[cut:]}, you see."))
    assert not has_piece(recording.events())
    assert recording.events()[-1]["text"] == "[redacted], you see."


def test_a_secret_that_is_cut_between_the_blocks_of_an_answer_is_told_in_no_pieces(
    tmp_path: Path,
) -> None:
    recording = Recording(tmp_path, SECRET)
    for cut in CUTS:
        blocks = [{"type": "text", "text": text} for text in (SECRET[:cut], f"{SECRET[cut:]}.")]
        answer = {"type": "tool_result", "tool_use_id": "t", "content": blocks}
        recording.recorder.take("user", {"message": {"content": [answer]}})
    assert not has_piece(recording.events())
    assert len(recording.events()) == len(CUTS)


def test_a_secret_that_is_cut_between_the_strings_of_a_call_is_told_in_no_pieces(
    tmp_path: Path,
) -> None:
    recording = Recording(tmp_path, SECRET)
    for cut in CUTS:
        block = {"type": "tool_use", "name": "send", "input": [SECRET[:cut], SECRET[cut:]]}
        recording.recorder.take("assistant", {"message": {"content": [block]}})
    assert not has_piece(recording.events())


def test_a_secret_that_is_cut_between_chunks_of_output_is_told_in_no_pieces(tmp_path: Path) -> None:
    recording = Recording(tmp_path, SECRET)
    for cut in CUTS:
        head = Head(
            Redactor([SECRET]), 100, lambda text: recording.recorder.take("stdout", {"text": text})
        )
        head.feed(f"It is {SECRET[:cut]}".encode())
        head.feed(f"{SECRET[cut:]}\n".encode())
        head.finish(Ending(0, None))
    assert not has_piece(recording.events())
    told = "".join(event["text"] for event in recording.events())
    assert told == "It is [redacted]\n" * len(CUTS)


def test_what_claude_writes_is_told_whole_however_its_bytes_are_cut(tmp_path: Path) -> None:
    line = json.dumps(saying(f"é {SECRET} 😀"), ensure_ascii=False).encode() + b"\n"
    recording = Recording(tmp_path, SECRET)
    job = make_job(tmp_path, on_event=recording.recorder.take)
    watch = Watch(job, 0)
    for cut in range(1, len(line)):
        watch.read(line[:cut])
        watch.read(line[cut:])
    watch.stderr.feed(b"a warn")
    watch.stderr.feed(b"ing")
    watch.conclude(Ending(0, None))
    told = [event["text"] for event in recording.events()]
    assert set(told[: len(line) - 1]) == {"é [redacted] 😀"}
    assert "".join(told[len(line) - 1 :]) == "a warning"


def test_a_secret_is_in_no_part_of_an_event(tmp_path: Path) -> None:
    recording = Recording(tmp_path, SECRET, "123456789012")
    given = {SECRET: [SECRET, {"a": 123456789012}], "long": "x" * 1_995 + SECRET}
    block = {"type": "tool_use", "id": SECRET, "name": SECRET, "input": given}
    recording.recorder.take("assistant", {"message": {"content": [block]}, "error": SECRET})
    recording.recorder.take(SECRET, {})
    recording.recorder.take("system", {"subtype": SECRET})
    assert len(recording.events()) == 3
    assert not has_piece(recording.events())
    assert "123456789012" not in recording.path.read_text()


def test_long_texts_are_cut_and_long_pieces_of_output_are_told_in_several_events(
    tmp_path: Path,
) -> None:
    recording = Recording(tmp_path, SECRET)
    (said,) = recording.told("assistant", saying("a" * 7_990 + SECRET + "b" * 10_000))
    assert said["text"] == "a" * 7_990 + "[redacted"[:9] + "…"
    assert said["data"] == {"role": "assistant", "textLength": 17_990 + len(SECRET)}
    printed = recording.told("stdout", {"text": "a" * 7_999 + "é" + "b" * 8_001})
    assert [len(event["text"]) for event in printed] == [8_000, 8_000, 1]
    block = {"type": "tool_use", "name": "write", "input": {"content": "a" * 10_000}}
    (call,) = recording.told("assistant", {"message": {"content": [block]}})
    assert call["data"]["input"]["content"] == "a" * 1_999 + "…"


@pytest.mark.parametrize(
    "value",
    [[["x" * 1_000] * 50], {"a": float("inf")}, 10**400, [[[]]], "\ud800\0"],
    ids=["large", "infinite", "huge", "deep", "unstorable"],
)
def test_what_the_api_would_refuse_is_left_out(tmp_path: Path, value: Any) -> None:
    if value == [[[]]]:
        for _ in range(60):
            value = [value]
    block = {"type": "tool_use", "id": "t", "name": "go", "input": value}
    (event,) = Recording(tmp_path).told("assistant", {"message": {"content": [block]}})
    if value == "\ud800\0":
        assert event["data"]["input"] == "\ufffd\ufffd"
    else:
        assert event["data"] == {"callId": "t", "tool": "go", "dataLeftOut": True}


def test_trouble_with_the_disk_or_with_an_event_reaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path)
    recording.recorder.take("assistant", saying("kept"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    recording.recorder.take("assistant", saying("lost"))
    monkeypatch.undo()
    recording.recorder.take("assistant", saying("not after a gap"))
    assert [event["text"] for event in recording.events()] == ["kept"]
    nothing = tmp_path / "nothing" / "run.ndjson"
    assert Recorder.begin(EventApi(), "run", nothing, Redactor(), lambda _: False) is None


def test_an_event_too_deep_to_look_through_costs_only_itself(tmp_path: Path) -> None:
    deep: Any = SECRET
    for _ in range(50_000):
        deep = [deep]
    recording = Recording(tmp_path, SECRET)
    block = {"type": "tool_use", "id": "t", "name": "go", "input": deep}
    (event,) = recording.told("assistant", {"message": {"content": [block]}})
    assert event["data"] == {"callId": "t", "tool": "go", "dataLeftOut": True}
    assert recording.told("assistant", saying("on"))


def test_a_line_beyond_all_bounds_is_cut_and_shows_no_half_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LONGEST_LINE_BYTES", 20_000)
    monkeypatch.setattr(process, "LONGEST_STRING_BYTES", 6_012)
    recording = Recording(tmp_path, SECRET)
    watch = Watch(make_job(tmp_path, on_event=recording.recorder.take), 0)
    watch.read(json.dumps(saying("x" * 6_000 + SECRET + "y" * 50_000)).encode() + b"\n")
    (event,) = recording.events()
    assert event["text"] == "x" * 6_000 + "[redacted]"
