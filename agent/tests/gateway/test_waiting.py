"""Whatever comes on whichever stream, the journal says of each call what its own answer said."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai_worker.disk.tool_calls import NO_EFFECT, POSSIBLE, ToolCalls
from pipedai_worker.gateway.messages import Effects, ListOfTools, Waiting

SESSIONS = st.sampled_from(["", "a", "stream 1"])
IDS = st.sampled_from([1, "1", 2, "b", 1.5])
RESULTS = st.sampled_from(
    [
        ({"result": {"isError": False}}, "ok"),
        ({"result": {}}, "ok"),
        ({"result": {"isError": True}}, "error"),
        ({"error": {"code": 1}}, "error"),
        ({"result": "text"}, "error"),
        ({}, "error"),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), SESSIONS, IDS, RESULTS),
        st.tuples(st.just("answer"), SESSIONS, IDS, RESULTS),
        st.tuples(st.just("refused"), SESSIONS, IDS, RESULTS),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_each_call_gets_its_own_answer(steps: list[Any], in_batches: bool) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        calls = ToolCalls(Path(directory) / "calls")
        waiting = Waiting(calls, Effects())
        waiting.ask(['"1"', "1"])
        expected: list[str] = []
        open_calls: dict[tuple[str, str], int] = {}
        for what, session, number, (answer, outcome) in steps:
            key = (session, json.dumps(number))
            if what == "call":
                waiting.expect(*key, calls.begin("x", POSSIBLE))
                open_calls[key] = len(expected)
                expected.append("unknown")
            elif what == "answer":
                message = {"jsonrpc": "2.0", "id": number, **answer}
                told = [{"method": "ping", "id": number}, message] if in_batches else message
                assert waiting.hear(session, json.dumps(told).encode()) == ({key[1]}, [])
                if key in open_calls:
                    expected[open_calls.pop(key)] = outcome
            else:
                waiting.fail(session, [key[1]])
                if key in open_calls:
                    expected[open_calls.pop(key)] = "error"
        assert [item["outcome"] for item in calls.listed()] == expected
        assert calls.counts()["unknown"] == expected.count("unknown")
        calls.close()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"5", b"[5]", b"[" * 99_999, b'{"id": {}}', b'{"id": true}']
)
def test_what_is_no_answer_is_passed_over(tmp_path: Path, data: bytes) -> None:
    calls = ToolCalls(tmp_path / "calls")
    assert Waiting(calls, Effects()).hear("", data) == (set(), [])
    calls.close()


def test_the_oldest_call_is_no_longer_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipedai_worker.gateway.messages.MOST_WAITING", 2)
    calls = ToolCalls(tmp_path / "calls")
    waiting = Waiting(calls, Effects())
    waiting.ask(["0"])
    for number in range(3):
        waiting.expect("", str(number), calls.begin("x", NO_EFFECT))
    for number in range(3):
        waiting.hear("", json.dumps({"id": number, "result": {}}).encode())
    assert [item["outcome"] for item in calls.listed()] == ["unknown", "ok", "ok"]
    calls.close()


def test_a_list_of_tools_teaches_effects(tmp_path: Path) -> None:
    calls, effects = ToolCalls(tmp_path / "calls"), Effects()
    waiting = Waiting(calls, effects)
    waiting.ask(["1"])
    waiting.expect("", "1", ListOfTools())
    tools = [{"name": "look", "annotations": {"readOnlyHint": True}}, {"name": "x" * 999}]
    answer = json.dumps({"id": 1, "result": {"tools": tools}}).encode()
    asyncio.run(waiting.hear_apart("", answer))
    assert (effects.of("look"), effects.of("x")) == (NO_EFFECT, POSSIBLE)
    calls.close()
