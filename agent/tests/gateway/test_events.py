"""However the network cuts a stream, its events are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testing.world.cases import cases

from pipedai_worker.gateway.upstream import Event, EventSplitter, EventTooLarge

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": ping", b"event: message", b"id: 7", b"", b"", b"retry: 5"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def split(stream: bytes, sizes: list[int], largest: int = 10_000) -> list[Event]:
    splitter = EventSplitter(largest)
    found: list[Event] = []
    position = 0
    for size in [*sizes, len(stream)]:
        found += splitter.feed(stream[position : position + size])
        position += size
    return found


@given(
    st.lists(st.tuples(LINES, ENDS), max_size=30),
    st.lists(st.integers(0, 9), max_size=60),
    st.booleans(),
)
def test_events_do_not_depend_on_where_the_stream_is_cut(
    lines: list[tuple[bytes, bytes]], sizes: list[int], marked: bool
) -> None:
    stream = b"\xef\xbb\xbf" * marked + b"".join(line + end for line, end in lines)
    found = split(stream, sizes)
    assert found == split(stream, [])
    again = b"".join(event.encode() for event in found)
    assert split(again, sizes) == found


@given(st.lists(st.lists(st.sampled_from([b"data: a", b": p", b"id: 1"]), min_size=1), max_size=8))
def test_every_event_comes_with_its_last_byte(events: list[list[bytes]]) -> None:
    splitter = EventSplitter(100_000)
    for lines in events:
        stream = b"\r".join(lines) + b"\r\r"
        assert list(splitter.feed(stream[:-1])) == []
        assert list(splitter.feed(stream[-1:])) == [Event(tuple(lines))]
        assert list(splitter.feed(b"")) == []


def test_fields_are_read_as_the_standard_says() -> None:
    (event,) = split(b"event: endpoint\ndata:a\ndata:  b\ndata\nid:\nother: x\n\n", [])
    assert (event.data, event.has_id) == (b"a\n b\n", False)
    (event,) = split(b"id: 4\ndata: x\n\n", [])
    assert (event.data, event.has_id) == (b"x", True)


@cases("line", [b"data: " + b"x" * 200, b"data: x\n" * 30, b"\xef\xbb\xbf" * 50])
def test_an_event_that_never_ends_is_refused_before_it_is_held(line: bytes) -> None:
    with pytest.raises(EventTooLarge):
        split(line, [10] * 100, largest=100)


def test_many_events_in_one_piece_are_no_large_event() -> None:
    assert len(split(b"data: x\n\n" * 100, [], largest=100)) == 100


def test_an_event_of_many_short_lines_counts_what_it_takes_of_memory() -> None:
    with pytest.raises(EventTooLarge):
        split(b"a\n" * 2000, [], largest=100_000)
