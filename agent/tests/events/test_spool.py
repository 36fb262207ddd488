"""A run's events are in a file that only its owner reads, and that is bounded; it is read from any event on."""

from __future__ import annotations

import json
import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from pipedai_worker.disk import spool
from pipedai_worker.disk.spool import SpoolReader, SpoolWriter, make_room

from .parts import numbers, written


def test_a_file_is_private_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    path.write_text("of an earlier claim")
    written(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (line,) = path.read_text().splitlines()
    event = json.loads(line)
    assert event.pop("at").endswith("Z")
    assert event == {"seq": 1, "type": "message", "text": "Event 1", "data": None}


@pytest.mark.parametrize(("events", "size"), [(10, 10**6), (10**6, 2_000)])
def test_a_file_is_bounded_and_its_last_event_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int, size: int
) -> None:
    monkeypatch.setattr(spool, "MOST_EVENTS", events)
    monkeypatch.setattr(spool, "MOST_BYTES", size)
    path = tmp_path / "run.ndjson"
    writer = written(path, 100)
    assert not writer.open
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["type"] for line in lines].count("truncated") == 1
    assert lines[-1]["type"] == "truncated"
    assert lines[-1]["data"]["events"] == len(lines) - 1
    assert len(lines) == 10 or len(lines) < 100
    assert path.stat().st_size <= size


def test_nothing_follows_the_last_event_when_a_run_goes_on_after_a_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOST_BYTES", 2_000)
    path = tmp_path / "run.ndjson"
    writer = written(path, 2)
    # This event is too long for the file, which still has room for a shorter one.
    writer.add("message", "x" * 1_000, None)
    for _ in range(2):
        SpoolWriter(path, go_on=True).add("message", "!", None)
    kinds = [json.loads(line)["type"] for line in path.read_bytes().splitlines()]
    assert kinds == ["message", "message", "truncated"]


def test_events_are_read_in_portions_that_one_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "run.ndjson", 1_200)
    with closing(SpoolReader(tmp_path / "run.ndjson")) as reader:
        assert numbers(reader) == numbers(reader) == list(range(1, 501))
        reader.go_to(501)
        monkeypatch.setattr(spool, "MOST_BYTES_IN_A_CALL", 1_000)
        part = numbers(reader)
        assert part == list(range(501, 501 + len(part)))
        assert 1 < len(part) < 20
        reader.go_to(1_200)
        assert numbers(reader) == [1_200]
        reader.go_to(2)
        assert numbers(reader)[0] == 2
        reader.go_to(5_000)
        assert (reader.seq, numbers(reader)) == (1_201, [])


def test_a_line_that_a_crash_cut_off_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    written(path, 2)
    with path.open("ab") as file:
        file.write(b'{"seq":3,')
    with closing(SpoolReader(path)) as reader:
        assert numbers(reader) == [1, 2]
        reader.go_to(9)
        assert reader.seq == 3
        assert not reader.removed
        path.unlink()
        assert reader.removed


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / f"run-{number}.ndjson"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    (tmp_path / "gone.ndjson").symlink_to(tmp_path / "nothing")
    make_room(tmp_path, most_bytes=250)
    assert sorted(path.stem for path in tmp_path.glob("run-*")) == ["run-2", "run-3"]


def test_a_full_disk_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(tmp_path / "run.ndjson")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(OSError, match="No space"):
        writer.add("message", "lost", None)
    assert (tmp_path / "run.ndjson").read_bytes() == b""
