"""Heartbeats tell the counts of tool calls, and whoever asks for one waits for its answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from testing.world.cases import cases

from pipedai_worker.api import Api, Refused, Unavailable
from pipedai_worker.running.outcome import iso
from pipedai_worker.running.reporting import Heartbeat, NotTold
from pipedai_worker.running.stopping import StopReason, StopRequest


class Answers(Api):
    """An API whose answers to heartbeats the test gives."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.told: list[Any] = []
        self.answer: dict[str, Any] | Exception = {}
        self.came = threading.Event()

    def heartbeat(
        self, run_id: str, tool_calls: dict[str, int] | None = None, session_id: str | None = None
    ) -> dict[str, Any]:
        self.told.append(tool_calls)
        self.came.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_an_asked_for_heartbeat_comes_at_once_with_the_counts() -> None:
    api, counts = Answers(), {"total": 0, "effects": 0, "unknown": 0}
    with Heartbeat(api, "r", StopRequest(), lambda: dict(counts)) as heartbeat:
        assert api.came.wait(30)
        began = time.monotonic()
        counts["total"] = counts["effects"] = counts["unknown"] = 1
        heartbeat.tell()
        assert time.monotonic() - began < 10
        assert api.told[-1] == {"total": 1, "effects": 1, "unknown": 1}


def test_nobody_is_told_while_the_api_is_away() -> None:
    api, stop = Answers(), StopRequest()
    api.answer = Unavailable("away")
    ended: list[str] = []

    def ask() -> None:
        try:
            heartbeat.tell()
        except NotTold:
            ended.append("not told")
        else:
            ended.append("told")

    with Heartbeat(api, "r", stop) as heartbeat:
        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(1)
        assert not ended
        api.answer = {}
        waiting.join(60)
        assert ended == ["told"]


@cases("answer", [{"cancelRequested": True}, Refused("gone", 409)])
def test_a_run_that_is_stopped_is_not_told(answer: Any) -> None:
    api, stop = Answers(), StopRequest()
    api.answer = answer
    with Heartbeat(api, "r", stop) as heartbeat, pytest.raises(NotTold):
        heartbeat.tell()
    assert stop.reason in {StopReason.CANCELED, StopReason.LOST}


def test_a_run_that_has_ended_is_not_told() -> None:
    api = Answers()
    with Heartbeat(api, "r", StopRequest()) as heartbeat:
        assert api.came.wait(30)
    with pytest.raises(NotTold):
        heartbeat.tell()


def test_a_heartbeat_that_fails_in_an_unknown_way_is_sent_again() -> None:
    api, stop = Answers(), StopRequest()
    api.answer = ValueError("nobody thought of this")
    with Heartbeat(api, "r", stop) as heartbeat:
        assert api.came.wait(30)
        api.answer = {}
        heartbeat.tell()
    assert stop.reason is None


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_while_a_run_is_executed_changes_no_lease(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    api, now = Answers(), time.time()
    api._learn_clock(now, 0.0)
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert api.seconds_until(iso(now + 60.0)) == pytest.approx(60.0, abs=20.0)
