"""The benchmark of the gateway measures what it says; its figures mean nothing on a busy machine."""

from __future__ import annotations

import json

import pytest

from . import bench_gateway


def test_the_benchmark_tells_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_gateway.py", "--calls", "10"])
    assert bench_gateway.main() in {0, 1}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answer"] for line in lines] == ["json", "events"]
    for line in lines:
        assert 0 < line["direct_p50"] <= line["direct_p99"]
        assert 0 < line["gateway_p50"] <= line["gateway_p99"]
        assert line["cost_p50"] == pytest.approx(line["gateway_p50"] - line["direct_p50"], abs=0.01)
