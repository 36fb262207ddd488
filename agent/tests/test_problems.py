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


def test_a_directory_of_claude_that_can_not_be_looked_into_is_a_missing_login_and_no_failed_poll(
    api: FakeApi, workers: Workers
) -> None:
    # With this name, looking fails for every account, as it does for one that may not enter the directory.
    directory = f"/{'x' * 300}"
    arguments = ("--config", "worker.json", "--claude", "sh")
    workers.execute("run", *arguments, CLAUDE_CONFIG_DIR=directory)
    api.until(lambda: api.count("claim-next"))
    (body,) = [body for kind, _, body in api.calls if kind == "claim-next"][:1]
    assert "not_signed_in" in [each["code"] for each in body["problems"]]
    doctor = workers.execute("doctor", *arguments, CLAUDE_CONFIG_DIR=directory)
    assert doctor.wait() == 1
    assert "FAIL  authentication" in doctor.log


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
