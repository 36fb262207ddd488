"""The reader of JSON lines is exact on valid input, and needs bounded memory on any other."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testing.world.cases import cases

from pipedai_worker.running.process import (
    LONGEST_LINE_BYTES,
    LONGEST_STRING_BYTES,
    JsonLines,
    StringCutter,
)
from pipedai_worker.values import MOST_VALUES, TooManyValues, has_too_many_values, parse

CHUNK = 64 * 1024


def read(data: bytes, chunk: int = CHUNK) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    lines = JsonLines(seen.append)
    for start in range(0, len(data), chunk):
        lines.feed(data[start : start + chunk])
    lines.finish()
    return seen


@cases("chunk", [1, 2, 3, 7, CHUNK])
def test_objects_are_read_however_the_stream_is_cut(chunk: int) -> None:
    data = '{"a": "é\\n"}\n\n{"b": 2}\r\n{"c": [1]}'.encode()
    assert read(data, chunk) == [{"a": "é\n"}, {"b": 2}, {"c": [1]}]


def test_what_is_no_object_is_skipped() -> None:
    data = b'warning\n[1]\n"x"\n42\n{"a": \n{"b": tru}\n\xff\xfe\n{"ok": 1}\n'
    data += b"{" * 100_000 + b"\n" + b'{"a":' * 100_000 + b'\n{"ok": 2}\n'
    assert read(data) == [{"ok": 1}, {"ok": 2}]


def test_a_line_with_too_many_values_is_skipped_if_they_are_not_in_a_long_string() -> None:
    many = "{}," * (LONGEST_LINE_BYTES // 3 - 100)
    data = f'{{"a": [{many}{{}}]}}\n{{"text": "{many}"}}\n{{"ok": 1}}\n'.encode()
    assert read(data) == [{"text": many[:LONGEST_STRING_BYTES]}, {"ok": 1}]


def test_values_are_counted_by_what_stands_before_them() -> None:
    most = json.dumps([{}] * (MOST_VALUES // 2))
    assert not has_too_many_values(most)
    assert len(parse(most.encode())) == MOST_VALUES // 2
    assert has_too_many_values(most.replace("[", "[1,", 1))
    with pytest.raises(TooManyValues):
        parse(most.replace("[", "[1,", 1).encode())


def test_a_long_line_is_read_with_its_strings_cut() -> None:
    text = 'é"\\\n' * 2_150_000
    event = {"type": "result", "result": text, "usage": {"output_tokens": 5}, "after": "kept"}
    data = json.dumps(event).encode() + b'\n{"next": 1}\n'
    assert len(data) > 6 * LONGEST_LINE_BYTES
    seen: list[dict[str, Any]] = []
    lines = JsonLines(seen.append)
    tracemalloc.start()
    for start in range(0, len(data), CHUNK):
        lines.feed(data[start : start + CHUNK])
    lines.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * LONGEST_LINE_BYTES
    result, following = seen
    assert following == {"next": 1}
    assert result["usage"] == {"output_tokens": 5}
    assert result["after"] == "kept"
    assert text.startswith(result["result"])
    assert LONGEST_STRING_BYTES / 12 < len(result["result"]) <= LONGEST_STRING_BYTES


def test_a_long_line_that_is_all_structure_is_skipped() -> None:
    assert read(b'{"a": [' + b"1," * LONGEST_LINE_BYTES + b'1]}\n{"ok": 1}\n') == [{"ok": 1}]


TEXT = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=8,
)


@given(JSON, st.booleans(), st.integers(1, 5))
def test_cutting_to_more_than_there_is_changes_nothing(
    value: Any, ascii_only: bool, chunk: int
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")
    assert cut(data, chunk, 10_000) == data


@given(JSON, st.booleans(), st.integers(1, 5), st.integers(0, 12))
def test_what_is_cut_is_still_json_and_short(
    value: Any, ascii_only: bool, chunk: int, longest: int
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")
    shorter = json.loads(cut(data, chunk, longest).decode(errors="replace"))
    assert type(shorter) is type(value)

    def strings(item: Any) -> list[str]:
        if isinstance(item, dict):
            return [*item, *(found for child in item.values() for found in strings(child))]
        if isinstance(item, list):
            return [found for child in item for found in strings(child)]
        return [item] if isinstance(item, str) else []

    assert all(len(text) <= longest for text in strings(shorter))


def cut(data: bytes, chunk: int, longest: int) -> bytes:
    cutter = StringCutter(longest)
    return b"".join(
        cutter.feed(data[start : start + chunk]) for start in range(0, len(data), chunk)
    )
