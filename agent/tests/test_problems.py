"""The worker finds what will make runs fail on its machine, and tells the API when that changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipedai_worker.conformance.fake_api import FakeApi
from pipedai_worker.doctor import problems
from tests.conftest import Workers

HERE = ["sh"]


def codes(*asked: object) -> list[str]:
    return [each["code"] for each in problems(*asked)]  # type: ignore[arg-type]


def test_each_problem_has_a_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("CLAUDE_CODE_OAUTH_TOKEN", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert codes(["no-such-claude"], "claude_max", tmp_path, None) == ["no_claude"]
    assert codes(HERE, "claude_max", tmp_path, 5.0) == ["not_signed_in"]
    (tmp_path / ".credentials.json").touch()
    assert codes(HERE, "claude_max", tmp_path, -4.9) == []
    assert codes(HERE, "claude_max", tmp_path, -5.1) == ["clock_off"]
    assert codes(None, None, tmp_path, 6.0) == ["clock_off"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    found = problems(HERE, None, tmp_path, None)
    assert {each["code"] for each in found} == {"disk_full"}
    assert all(len(each["message"]) <= 200 for each in found)


def test_a_worker_tells_them_once_and_again_when_they_change(
    api: FakeApi, workers: Workers
) -> None:
    claude = workers.directory / "claude"
    api.long_polls = False
    workers.execute("run", "--config", "worker.json", "--claude", str(claude))

    def told() -> list[list[str]]:
        bodies = [body for kind, _, body in api.calls if kind == "claim-next"]
        return [
            [each["code"] for each in body["problems"]] for body in bodies if "problems" in body
        ]

    api.until(lambda: len(told()) == 1)
    assert "no_claude" in told()[0]
    before = api.count("claim-next")
    claude.write_text("#!/bin/sh\n")
    claude.chmod(0o755)
    api.until(lambda: len(told()) == 2)
    assert "no_claude" not in told()[1]
    assert api.count("claim-next") > before
